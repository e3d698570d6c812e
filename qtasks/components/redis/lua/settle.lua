--@include lib storage
-- settle_many
local verdicts, i = {}, 1
for n = 1, #settled_ids(1) do
  local verdict, _, _, more = settle(i)
  verdicts[n] = verdict
  if verdict == 'A' then
    for follows = i + 2, i + 2 * more, 2 do
      local id, _, _, at = unpack_struct('>c16Hh', ARGV[follows])
      local kind, _, _, unique = add(id, ARGV[follows + 1])
      if kind == 'A' then store(id, ARGV[follows + 1], unique, string.sub(ARGV[follows], at)) end
    end
  end
  i = i + 2 + 2 * more
end
commit()
confirm()
publish()
return table.concat(verdicts)

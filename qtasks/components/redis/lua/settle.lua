--@include lib storage
--@keys rec res run done dead ord uniq cancel wait count seq
-- settle_many
local settles = parse_settles(1)
local verdicts = {}
for n = 1, #settles do
  local s = settles[n]
  verdicts[n] = settle(s.id, s.epoch, s.owner, s)
  if verdicts[n] == 'A' then
    for i = s.following, s.following + 2 * s.more - 1, 2 do
      local id, _, _, _, at = unpack_struct('>c16Hhd', ARGV[i])
      local kind, _, new = add(id, ARGV[i + 1])
      if kind == 'A' then store(id, ARGV[i + 1], new, string.sub(ARGV[i], at)) end
    end
  end
end
commit()
confirm()
publish()
return table.concat(verdicts)

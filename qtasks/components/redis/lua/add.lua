--@include lib storage
-- add_many. ARGV: per record its uuid (and token), its part. Gives what add_push.lua gives.
local ids, letters, others = {}, {}, {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = string.sub(ARGV[i], 1, 16) end
rec:load(ids)
res:load(ids)
if #ids > 1 then draw_seq(#ids) end
for i = 1, #ids do
  local kind, other, _, unique = add(ids[i], ARGV[2 * i])
  if kind == 'A' then store(ids[i], ARGV[2 * i], unique, string.sub(ARGV[2 * i - 1], 17)) end
  letters[i] = kind
  if kind == 'E' then others[#others + 1] = other end
end
commit()
confirm()
publish()
return table.concat(letters) .. table.concat(others)

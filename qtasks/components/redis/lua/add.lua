--@include lib storage
-- add_many. ARGV: per record its uuid (and token), its part
local ids, reply = {}, {}
for i = 1, #ARGV, 2 do ids[#ids + 1] = string.sub(ARGV[i], 1, 16) end
rec:load(ids)
res:load(ids)
if #ids > 1 then draw_seq(#ids) end
for i = 1, #ids do
  local kind, other, _, unique = add(ids[i], ARGV[2 * i])
  if kind == 'A' then store(ids[i], ARGV[2 * i], unique, string.sub(ARGV[2 * i - 1], 17)) end
  reply[#reply + 1] = kind .. other
end
commit()
confirm()
publish()
return reply

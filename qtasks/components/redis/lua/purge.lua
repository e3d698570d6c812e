--@include lib storage
-- purge: what has expired, or the oldest dead above a number. ARGV: before or '', dead_max or '', limit
local ids = {}
if ARGV[1] ~= '' then
  ids = call('ZRANGEBYSCORE', K.done, '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[3])
else
  local above_max = call('ZCARD', K.dead) - tonumber(ARGV[2])
  if above_max > 0 then ids = call('ZRANGE', K.dead, 0, math.min(above_max, tonumber(ARGV[3])) - 1) end
end
res:load(ids)
local erased = 0
for i = 1, #ids do
  if erase(ids[i]) then erased = erased + 1 end
end
commit()
return { #ids, erased }

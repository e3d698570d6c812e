--@include lib
-- The finished record, or word is left where to tell of it. ARGV: uuid, channel ('' leaves no word)
local id, channel = ARGV[1], ARGV[2]
local value = call('HGET', K.res, id)
if value then return { 'F', value } end
if call('HEXISTS', K.rec, id) == 0 then return { '' } end
-- Nearly always it is the only one that waits for this task; else others do, or a full server refused.
if channel ~= '' and redis.pcall('HSETNX', K.wait, id, channel) ~= 1 then
  go_on_when_full()
  local others = call('HGET', K.wait, id)
  if not others then
    call('HSET', K.wait, id, channel)
  elseif not string.find(' ' .. others .. ' ', ' ' .. channel .. ' ', 1, true) then
    call('HSET', K.wait, id, others .. ' ' .. channel)
  end
end
return { 'R' }

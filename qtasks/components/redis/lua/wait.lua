--@include lib
-- The finished record, or word is left where to tell of it. ARGV: uuid, channel ('' leaves no word)
local id, channel = ARGV[1], ARGV[2]
local value = call('HGET', K.res, id)
if value then return { 'F', value } end
if call('HEXISTS', K.rec, id) == 0 then return { '' } end
if channel ~= '' then
  local others = call('HGET', K.wait, id)
  go_on_when_full()
  if not others then
    hset(K.wait, { id, channel }, 1, 2)
  elseif not string.find(' ' .. others .. ' ', ' ' .. channel .. ' ', 1, true) then
    hset(K.wait, { id, others .. ' ' .. channel }, 1, 2)
  end
end
return { 'R' }

-- The exclusive id of the app. ARGV: 'take' or 'give', owner, milliseconds
local holder = redis.call('GET', K.hold)
if ARGV[1] == 'give' then
  if holder == ARGV[2] then redis.call('DEL', K.hold) end
  return 1
end
if holder and holder ~= ARGV[2] then return 0 end
redis.call('SET', K.hold, ARGV[2], 'PX', ARGV[3])
return 1

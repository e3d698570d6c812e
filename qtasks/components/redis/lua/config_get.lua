-- Values by prefix of their field; what has expired goes. ARGV: prefix ('' is all), 'one' or 'all'
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local found = {}
if ARGV[2] == 'one' then
  local value = redis.call('HGET', K.config, ARGV[1])
  found = value and { ARGV[1], value } or {}
else
  found = redis.call('HGETALL', K.config)
end
local reply = {}
for i = 1, #found, 2 do
  local _, expires = struct.unpack('>dd', found[i + 1])
  if expires <= now then
    redis.call('HDEL', K.config, found[i])
  elseif string.sub(found[i], 1, #ARGV[1]) == ARGV[1] then
    reply[#reply + 1] = found[i]
    reply[#reply + 1] = found[i + 1]
  end
end
return reply

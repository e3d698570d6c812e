-- delete. ARGV: field, if_version or ''
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local old = redis.call('HGET', K.config, ARGV[1])
if not old then return 0 end
local version, expires = struct.unpack('>dd', old)
if expires <= now then
  redis.call('HDEL', K.config, ARGV[1])
  return 0
end
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= version then return 0 end
return redis.call('HDEL', K.config, ARGV[1])

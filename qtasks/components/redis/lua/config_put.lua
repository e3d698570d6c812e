-- put. ARGV: field, value (JSON), ttl or '', if_version or ''
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local old, version = redis.call('HGET', K.config, ARGV[1]), 0
if old then
  local stored, expires = struct.unpack('>dd', old)
  if expires > now then version = stored end
end
if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= version then return false end
version = redis.call('INCR', K.versions)
local expires = ARGV[3] == '' and math.huge or now + tonumber(ARGV[3])
redis.call('HSET', K.config, ARGV[1], struct.pack('>dd', version, expires) .. ARGV[2])
if ARGV[3] ~= '' then
  -- One that nobody asks for again would stay for ever: each value with a ttl takes away some that are over.
  local some = redis.call('HRANDFIELD', K.config, 3, 'WITHVALUES')
  for i = 1, #some, 2 do
    local _, ended = struct.unpack('>dd', some[i + 1])
    if ended <= now then redis.call('HDEL', K.config, some[i]) end
  end
end
return version

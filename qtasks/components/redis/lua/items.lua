-- read_items. ARGV: uuid, start, limit
local first = tonumber(ARGV[2])
local last = math.min(tonumber(redis.call('HGET', K.itemn, ARGV[1]) or '0'), first + tonumber(ARGV[3]))
local reply = {}
for i = first, last - 1 do
  local item = redis.call('HGET', K.items, ARGV[1] .. string.format('%.17g', i))
  if not item then break end
  reply[#reply + 1] = item
end
return reply

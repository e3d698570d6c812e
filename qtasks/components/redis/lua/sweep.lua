--@include lib broker
--@queues
-- sweep: one compare-and-set over what has expired (R8). ARGV: queue names | limit, max_deliveries
local stale = unknown_queues()
if stale then return stale end
local left, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local restored, buried = {}, {}
for index = 1, #queues do
  local q = queues[index]
  local expired = {}
  if left > 0 then
    expired = call('ZRANGEBYSCORE', q.lease_key, '-inf', text(now), 'LIMIT', 0, math.min(left, 800))
  end
  ent:load(expired)
  for i = 1, #expired do
    local id = expired[i]
    local e = entry(id)
    left = left - 1
    if not e or e.state ~= 'L' or not by_name[e.queue] then
      q.lease:put(id, false)
    elseif e.deliveries >= most then
      local reason = string.format('its worker was lost %d times: deliveries are used up', e.deliveries)
      buried[#buried + 1] = id
      buried[#buried + 1] = text(e.epoch)
      buried[#buried + 1] = reason
      bury_entry(id, e, reason)
    else
      e.state, e.owner, e.restored = 'W', '', 1
      save(id, e)
      q.lease:put(id, false)
      q.ready:put(id, e.score)
      arrived(q.name)
      restored[#restored + 1] = id
    end
  end
end
commit()
wake_up()
return { 'OK', restored, buried }

--@include lib broker
--@queues
-- size: ready, delayed and leased of each queue. ARGV: queue names
local stale = unknown_queues()
if stale then return stale end
local reply = { 'OK' }
for i = 1, #queues do
  local q = queues[i]
  local due = call('ZCOUNT', q.delayed_key, '-inf', text(now))
  reply[#reply + 1] = { q.name, call('ZCARD', q.ready_key) + due, call('ZCARD', q.delayed_key) - due,
    call('ZCARD', q.lease_key) }
end
return reply

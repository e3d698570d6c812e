--@include lib broker
--@queues
-- flush: every entry; the counters of epochs and of order go on. ARGV: queue names
local stale = unknown_queues()
if stale then return stale end
call('UNLINK', K.ent, K.buried, K.queues)
for i = 1, #queues do
  call('UNLINK', queues[i].ready_key, queues[i].delayed_key, queues[i].lease_key)
end
return { 'OK' }

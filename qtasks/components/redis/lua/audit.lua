--@include lib broker
--@queues
-- audit: one page of entries, put in order again. ARGV: queue names | cursor, count
local stale = unknown_queues()
if stale then return stale end
local page = call('HSCAN', K.ent, ARGV[2], 'COUNT', ARGV[3])
local repaired = {}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  ent.val[id] = page[2][i + 1]
  local e = entry(id)
  local q = e and by_name[e.queue]
  local found = false
  if not q then
    -- It cannot be read, or its queue is unknown: the reconciler pushes the record again.
    ent:put(id, false)
    found = true
  elseif e.state == 'B' then
    found = call('HEXISTS', K.buried, id) == 1
  elseif e.state == 'L' then
    found = call('ZSCORE', q.lease_key, id)
  else
    found = call('ZSCORE', q.ready_key, id) or call('ZSCORE', q.delayed_key, id)
  end
  if not found then
    e.state, e.owner = 'W', ''
    save(id, e)
    q.ready:put(id, e.score)
    arrived(q.name)
    repaired[#repaired + 1] = id
  end
end
commit()
wake_up()
return { 'OK', page[1], #page[2] / 2, repaired }

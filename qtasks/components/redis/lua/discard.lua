--@include lib broker
--@queues
-- discard_many. ARGV: queue names | uuids
local stale = unknown_queues()
if stale then return stale end
local ids = {}
for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end
ent:load(ids)
for i = 1, #ids do
  if ent:get(ids[i]) then ent:put(ids[i], false) end
  for index = 1, #queues do
    queues[index].ready:put(ids[i], false)
    queues[index].delayed:put(ids[i], false)
    queues[index].lease:put(ids[i], false)
  end
end
call('HDEL', K.buried, unpack(ids))
commit()
return { 'OK' }

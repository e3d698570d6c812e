--@include lib broker
--@queues
-- contains_many. ARGV: queue names | uuids
local stale = unknown_queues()
if stale then return stale end
local ids, known = {}, {}
for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end
ent:load(ids)
for index = 1, #queues do
  local scores = call('ZMSCORE', queues[index].ready_key, unpack(ids))
  for i = 1, #ids do
    if scores[i] then known[i] = true end
  end
end
local verdicts = {}
for i = 1, #ids do verdicts[i] = (known[i] or entry(ids[i])) and '1' or '0' end
return { 'OK', table.concat(verdicts) }

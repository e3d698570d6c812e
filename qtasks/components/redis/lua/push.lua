--@include lib broker
--@queues
-- push_many. ARGV: queue names | per item: uuid, queue index, priority, available_at, min_epoch
local items, ids, per_queue = {}, {}, {}
for i = 2, #ARGV do
  local id, index, priority, available, min_epoch = unpack_struct('>c16Hhdd', ARGV[i])
  items[#items + 1] = { id, queues[index + 1], priority, available, min_epoch }
  ids[#ids + 1] = id
end
ent:load(ids)
if #items > 1 then draw_seq(#items) end
local verdicts = {}
for i = 1, #items do
  local id, q, priority, available, min_epoch = unpack(items[i])
  if entry(id) or call('ZSCORE', q.ready_key, id) then
    verdicts[i] = 'a'
  else
    local e = { state = 'W', restored = 0, deliveries = 0, score = score_of(priority), epoch = 0,
      available = available, owner = '', queue = q.name }
    save(id, e)
    place(id, q, e.score, available)
    above(min_epoch)
    if not per_queue[q.name] then call('SADD', K.queues, q.name) end
    per_queue[q.name] = true
    verdicts[i] = 'p'
  end
end
commit()
confirm()
raise_epoch()
wake_up()
return table.concat(verdicts)

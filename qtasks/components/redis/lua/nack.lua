--@include lib broker
--@queues
-- nack_many. ARGV: queue names | per item: uuid, epoch, delay, deliveries, min_epoch, owner
local verdicts, items, ids = {}, {}, {}
for i = 2, #ARGV do
  local id, epoch, delay, deliveries, min_epoch, at = unpack_struct('>c16ddI4d', ARGV[i])
  items[#items + 1] = { id, epoch, delay, deliveries, min_epoch, string.sub(ARGV[i], at) }
  ids[#ids + 1] = id
end
ent:load(ids)
for i = 1, #items do
  local id, epoch, delay, deliveries, min_epoch, owner = unpack(items[i])
  local e = entry(id)
  if holds(e, epoch, owner) then
    put_back(id, e, delay, deliveries, min_epoch)
    verdicts[i] = 'd'
  else
    verdicts[i] = 'l'
  end
end
commit()
raise_epoch()
wake_up()
return table.concat(verdicts)

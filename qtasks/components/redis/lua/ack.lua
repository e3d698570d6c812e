--@include lib broker
--@queues
-- ack_many and bury_many. ARGV: queue names | 'ack', or 'bury:' and the reason | per handle: uuid, epoch, owner
local verdicts, handles, ids = {}, {}, {}
for i = 3, #ARGV do
  local id, epoch, at = unpack_struct('>c16d', ARGV[i])
  handles[#handles + 1] = { id, epoch, string.sub(ARGV[i], at) }
  ids[#ids + 1] = id
end
ent:load(ids)
for i = 1, #handles do
  local id, e = handles[i][1], entry(handles[i][1])
  if not holds(e, handles[i][2], handles[i][3]) then
    verdicts[i] = 'l'
  else
    verdicts[i] = 'd'
    if ARGV[2] == 'ack' then forget(id, by_name[e.queue]) else bury_entry(id, e, string.sub(ARGV[2], 6)) end
  end
end
commit()
return table.concat(verdicts)

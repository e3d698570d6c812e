--@include lib broker
--@queues
-- extend_many. ARGV: queue names | lease | per handle: uuid, epoch, owner
local verdicts, deadline, handles, ids = {}, now + tonumber(ARGV[2]), {}, {}
for i = 3, #ARGV do
  local id, epoch, at = unpack_struct('>c16d', ARGV[i])
  handles[#handles + 1] = { id, epoch, string.sub(ARGV[i], at) }
  ids[#ids + 1] = id
end
ent:load(ids)
for i = 1, #handles do
  local id, e = handles[i][1], entry(handles[i][1])
  if holds(e, handles[i][2], handles[i][3]) then
    by_name[e.queue].lease:put(id, deadline)
    verdicts[i] = 'h'
  else
    verdicts[i] = 'l'
  end
end
go_on_when_full()
commit()
return table.concat(verdicts)

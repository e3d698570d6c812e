--@include base plain_end lib broker storage both
--@queues
-- settle_and_ack: the outcome, the tasks that follow from it, and the end of the delivery (R2, R6). Most batches end in
-- plain_end.lua; of the others it has done what it could.
local ids, i = settled_ids(2), 2
ent:load(ids)

local function settle_any(n, id)
  local verdict, epoch, owner, more, nack = settle(i)
  verdicts[n] = verdict
  if verdict == 'A' then
    for follows = i + 2, i + 2 * more, 2 do add_and_enqueue(ARGV[follows], ARGV[follows + 1]) end
  end
  local q = verdict ~= 'R' and held_in(id, epoch, owner)
  if q and nack then
    put_back(id, entry(id), nack[1], nack[2], nack[3])
  elseif q then
    forget(id, q)
  end
  i = i + 2 + 2 * more
end

for n = 1, #ids do
  if verdicts[n] then i = i + 2 else settle_any(n, ids[n]) end
end
commit()
confirm()
raise_epoch()
publish()
wake_up()
return table.concat(verdicts)

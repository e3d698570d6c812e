--@include lib broker storage both
--@keys ent epoch queues wake rec res run done dead ord uniq cancel wait count seq
--@queues
-- settle_and_ack: the outcome, the tasks that follow from it, and the end of the delivery (R2, R6)
local settles, ids = parse_settles(2)
ent:load(ids)
local verdicts = {}
for n = 1, #settles do
  local s = settles[n]
  local verdict = settle(s.id, s.epoch, s.owner, s)
  verdicts[n] = verdict
  if verdict == 'A' then
    for i = s.following, s.following + 2 * s.more - 1, 2 do add_and_enqueue(ARGV[i], ARGV[i + 1]) end
  end
  if verdict ~= 'R' then
    local e = entry(s.id)
    if holds(e, s.epoch, s.owner) then
      if s.nack == 1 then
        put_back(s.id, e, s.delay, s.put_deliveries, s.min_epoch)
      else
        forget(s.id, e)
      end
    end
  end
end
commit()
confirm()
raise_epoch()
publish()
wake_up()
return table.concat(verdicts)

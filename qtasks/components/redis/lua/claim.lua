--@include lib rest broker
--@queues
-- claim. ARGV: queue names | n, owner, lease, channel. Gives how long to rest (see rest_until_due; 0 where there may be
-- more), the server's time, and for each queue the entries, one behind the other (see claimed).
local left, owner, ends = tonumber(ARGV[2]), ARGV[3], text(now + tonumber(ARGV[4]))
local told, wanted, tail = {}, left, pack('>Hc0', #owner, owner)
for index = 1, #queues do
  local q, entries = queues[index], {}
  while left > 0 do
    local ids, popped, epoch = pop(q, math.min(left, 400))
    if #ids == 0 then break end
    for i = 1, #ids do
      local e = take(q, ids[i], popped[2 * i], epoch + i, owner)
      if e then
        if e.available < 0 then e.available = now end
        q.lease:put(ids[i], ends)
        entries[#entries + 1] = ids[i] .. claimed(ids[i], e, tail)
        left = left - 1
      end
    end
  end
  told[index] = table.concat(entries)
end
local rest = (left > 0 or left == wanted) and rest_until_due(ARGV[5], ARGV[1], '') or '0'
commit()
return { rest, text(now), told }

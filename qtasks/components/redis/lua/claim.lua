--@include lib broker
--@queues
-- claim. ARGV: queue names | n, owner, lease, channel. Gives the seconds until the next entry is due (where
-- nothing was claimed), the server's time, then an entry each.
local left, owner, lease = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local reply, tail = { '', text(now) }, pack('>Hc0', #owner, owner)
for index = 1, #queues do
  local q = queues[index]
  while left > 0 do
    local ids, entries, seen = take(q, math.min(left, 400), owner, lease)
    if seen == 0 then break end
    for i = 1, #ids do
      local e = entries[i]
      if e.available < 0 then e.available = now end
      reply[#reply + 1] = claimed(ids[i], e, tail, pack('>H', index - 1))
      left = left - 1
    end
  end
end
if #reply == 2 then reply[1] = rest_until_due(ARGV[5], ARGV[1]) end
commit()
return reply

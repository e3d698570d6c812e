--@include lib broker storage
--@queues
-- claim_and_start. ARGV: queue names | n, owner, lease, channel, seconds that a missing record is waited for.
-- Gives the seconds until the next entry is due (where none was claimed), the server's time, then an entry
-- and its record each.
local left, owner, lease, grace = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[6])
local reply, n, looked = { '', text(now) }, 2, 0
local tail = pack('>Hc0', #owner, owner)

-- What cannot run is put where it belongs, by the start verdicts; its delivery is returned.
local function turn_away(id, e, kind, value)
  if e.available < 0 then e.available = now end
  if kind == 'T' then
    forget(id, by_name[e.queue])
  elseif kind == 'U' then
    bury_entry(id, e, 'its record cannot be read')
  elseif kind == 'M' and now > e.available + grace then
    bury_entry(id, e, 'the storage has no record of this task')
  elseif kind == 'M' then
    put_back(id, e, 1, e.deliveries - 1, 0)
  elseif kind == 'C' then
    put_back(id, e, 0, e.deliveries - 1, value)
  else
    put_back(id, e, value, e.deliveries - 1, 0)
  end
end

local function begin(ids, entries, index)
  rec:load(ids)
  run:load(ids)
  for i = 1, #ids do
    local id, e = ids[i], entries[i]
    local before = run.val[id]
    local kind, value, _, available = start(id, e.epoch, owner, e.deliveries)
    if kind == 'S' then
      e.available = available
      if before and cancel:get(id) then
        value = value .. '\ncancel_requested\ttrue\ncancel_reason\t' .. cancel:get(id)
      end
      reply[n + 1], reply[n + 2] = claimed(id, e, tail, index), value
      n = n + 2
      left = left - 1
    else
      turn_away(id, e, kind, value)
    end
  end
end

for index = 1, #queues do
  while left > 0 and looked < 1000 do
    local ids, entries, seen = take(queues[index], math.min(left, 400), owner, lease)
    if seen == 0 then break end
    looked = looked + seen
    begin(ids, entries, pack('>H', index - 1))
  end
end
-- A worker that was shown only what cannot run looks again at once instead of going to rest.
if looked == 0 then
  reply[1] = rest_until_due(ARGV[5], ARGV[1])
elseif n == 2 then
  reply[1] = '0'
end
commit()
raise_epoch()
return reply

--@include lib broker storage
--@queues
-- claim_and_start. ARGV: queue names | n, owner, lease, channel, seconds that a missing record is waited for, '1' where
-- the worker has nothing to do but what it gets here.
-- Gives how long to rest (see rest_until_due; 0 where there may be more), the server's time, the entries, one
-- behind the other, and a record for each.
local left, owner, grace = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[6])
local ends, looked = text(now + tonumber(ARGV[4])), 0
local reply, n, entries, m = { '0', text(now), '' }, 3, {}, 0
local tail = pack('>Hc0', #owner, owner)
-- A worker at rest claims every second. Longer than this its word does not stand, and never longer than a lease: so
-- one that is stuck is handed one task, and not the next one when that was taken from it.
local RENEWED = 5
local FIRST = pack('>c1BI4', 'L', 0, 1)
local started = pack('>I4ddHc0', 1, now, now, #owner, owner)

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

-- A claim of any task. Gives its entry and its record, if it may run.
local function begin(q, id, score, epoch, index)
  local e = take(q, id, score, epoch, owner)
  if not e then return nil end
  q.lease:put(id, ends)
  local before = run.val[id]
  local kind, value, _, available = start(id, epoch, owner, e.deliveries)
  if kind ~= 'S' then
    turn_away(id, e, kind, value)
    return nil
  end
  e.available = available
  if before and cancel:get(id) then
    value = value .. '\ncancel_requested\ttrue\ncancel_reason\t' .. cancel:get(id)
  end
  return claimed(id, e, tail, index), value
end

-- Claims and starts what was taken from one queue. Nearly all of it are new tasks whose first claim this is: there is no
-- token to compare and no count to go on with, so their tokens are written straight away.
local function begin_all(q, ids, popped, before, index)
  rec:load(ids)
  run:load(ids)
  local ents, recs, runs, leases = ent.val, rec.val, run.val, q.lease.val
  local of_ent, of_run, of_lease, k = {}, {}, {}, 0
  local queued = tail .. q.name
  for i = 1, #ids do
    local id, available = ids[i], nil
    local value = recs[id]
    if value and not ents[id] and not runs[id] and readable(value) then available = unpack_struct('>d', value, 9) end
    local told
    if available and available <= now then
      local head = pack('>ddd', popped[2 * i], before + i, available)
      local e, r = FIRST .. head .. queued, 'P' .. sub(head, 9, 16) .. started
      ents[id], runs[id], leases[id] = e, r, ends
      of_ent[k + 1], of_ent[k + 2], of_run[k + 1], of_run[k + 2] = id, e, id, r
      of_lease[k + 1], of_lease[k + 2], k = ends, id, k + 2
      told = id .. FIRST .. head .. index
    else
      told, value = begin(q, id, popped[2 * i], before + i, index)
    end
    if told then
      n, m = n + 1, m + 1
      reply[n], entries[m] = value, told
    end
  end
  append(ent, of_ent)
  append(run, of_run)
  append(q.lease, of_lease)
end

for index = 1, #queues do
  while left > m and looked < 1000 do
    local ids, popped, before = pop(queues[index], math.min(left - m, 400))
    if #ids == 0 then break end
    looked = looked + #ids
    begin_all(queues[index], ids, popped, before, pack('>H', index - 1))
  end
end
reply[3] = table.concat(entries)
-- A worker that got all there was is told of more, without asking once more first. One that was shown what cannot run
-- looks again at once instead: it may have been put back. New tasks are handed over where it has nothing else to do, or
-- one task, and then when that is settled; whoever goes on claiming withdraws the word that may be left of an earlier rest.
if m < left and looked == m then
  local terms = ''
  if ARGV[7] == '1' and m < 2 then
    local last = sub(reply[3], 1, 16)
    -- What was handed over while this claim was under way is not known to the worker that sent it.
    if m == 0 then last = unsettled_of(call('HGET', K.wake, ARGV[5]) or '') or '' end
    local lease = tonumber(ARGV[4])
    terms = '\n' .. pack('>ddBc0', now + math.min(RENEWED, lease), lease, #last, last) .. owner
  end
  reply[1] = rest_until_due(ARGV[5], ARGV[1], terms)
end
if reply[1] == '0' and ARGV[5] ~= '' then call('HDEL', K.wake, ARGV[5]) end
commit()
raise_epoch()
return reply

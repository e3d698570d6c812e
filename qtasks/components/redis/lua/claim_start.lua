--@include base clock rest plain_claim lib broker storage
--@queues
-- claim_and_start. ARGV: queue names | n, owner, lease, channel, seconds that a missing record is waited for, '1' where
-- the worker has nothing to do but what it gets here.
-- Gives how long to rest (see rest_until_due; 0 where there may be more), the server's time, for each queue the
-- entries, one behind the other (see claimed), and a record for each. Most claims end in plain_claim.lua; of the others
-- it has done what it could.
local grace = tonumber(ARGV[6])

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
local function begin(q, id, score, epoch)
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
  return claimed(id, e, tail), value
end

-- A batch of which plain_claim.lua left some, in its order. What it has read of those counts, unless this script has changed
-- it since: that is not written yet.
local function begin_others(index, q)
  local batch, pieces, k = other, {}, 0
  other = nil
  for i = 1, #batch.ids do
    local id, value, claim = batch.ids[i], batch.recs[i], batch.of_ent[k + 2]
    if batch.odd[i] then
      ent.val[id] = ent.val[id] or batch.ents[i]
      if rec.val[id] == nil then rec.val[id] = value end
      if run.val[id] == nil then run.val[id] = batch.runs[i] end
      claim, value = begin(q, id, batch.popped[2 * i], batch.before + i)
    else
      k = k + 2
    end
    if claim then
      m = m + 1
      pieces[#pieces + 1], reply[m + 3] = id .. claim, value
    end
  end
  told[index] = (told[index] or '') .. table.concat(pieces)
end

for index = first, #queues do
  local q, found = queues[index], 1
  if other then begin_others(index, q) end
  while left > m and looked < 1000 and found > 0 do
    promote(q)
    found = claim_plain(index, q.name, math.min(left - m, AT_ONCE))
    if other then begin_others(index, q) end
  end
end
rest()
commit()
raise_epoch()
return reply

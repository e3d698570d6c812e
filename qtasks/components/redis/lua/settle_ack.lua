--@include lib broker storage both
--@queues
-- settle_and_ack: the outcome, the tasks that follow from it, and the end of the delivery (R2, R6)
local ids, verdicts, i = settled_ids(2), {}, 2
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

-- The queue of a task that ends as nearly all do: exactly this token has its record and its entry, nothing else follows
-- from it, and nobody is to be told. Both tokens have epoch and owner as the settle has them, so they are compared
-- as they stand; a record with flags of 2 and more has to be looked into.
local NOTHING_MORE = '\0\0\0'
local function plain_end(arg, value, token, e)
  if not (value and token and e) or byte(value) ~= 82 or byte(token) ~= 80 or byte(e) ~= 76 then return nil end
  local flags = byte(value, FLAGS_AT)
  if not flags or flags > 1 or #value < 32 + 8 * flags or sub(arg, 35, 37) ~= NOTHING_MORE then return nil end
  local epoch, owner = sub(arg, 17, 24), sub(arg, 38)
  if epoch ~= sub(token, 2, 9) or owner ~= sub(token, 30) then return nil end
  local name_at = 31 + #owner
  if epoch ~= sub(e, 15, 22) or owner ~= sub(e, 31, name_at - 1) then return nil end
  return by_name[sub(e, name_at)]
end

local PLAIN = { ['s\0'] = 's', ['e\0'] = 'e', ['c\0'] = 'c' } -- an outcome that ends a task, and leaves no dead one
local recs, runs, ents, told, asked = rec.val, run.val, ent.val, wait.val, cancel.val
local gone, k, results, dues, leases, tally = {}, 0, {}, {}, {}, { s = 0, e = 0, c = 0 }
for n = 1, #ids do
  local id, arg = ids[n], ARGV[i]
  local value, token = recs[id], runs[id]
  local status, q = PLAIN[sub(arg, 25, 26)], nil
  if status and not told[id] and not asked[id] then q = plain_end(arg, value, token, ents[id]) end
  if q then
    local result = 'F' .. sub(arg, 25, 34) .. pack('>H', #token) .. token .. value .. '\n' .. ARGV[i + 1]
    k = k + 1
    gone[k], results[2 * k - 1], results[2 * k] = id, id, result
    dues[2 * k - 1], dues[2 * k] = unpack_struct('>d', arg, 27), id
    recs[id], runs[id], ents[id], res.val[id] = false, false, false, result
    local of_queue = leases[q] or {}
    leases[q], of_queue[#of_queue + 1] = of_queue, id
    tally[status] = tally[status] + 1
    verdicts[n], i = 'A', i + 2
  else
    settle_any(n, id)
  end
end
remove_all(rec, gone)
remove_all(run, gone)
remove_all(ent, gone)
append(res, results)
append(done, dues)
for q, of_queue in pairs(leases) do remove_all(q.lease, of_queue) end
count('process', -k)
for status, number in pairs(tally) do count(status, number) end
commit()
confirm()
raise_epoch()
publish()
wake_up()
return table.concat(verdicts)

--@include lib broker storage both
--@queues
-- add_and_push. ARGV: queue names | max_queue or '' | per record: uuid, queue, priority (and token); its part.
-- Gives a letter for each, then for each E the uuid that has its unique key. Most batches end in add_plain.lua.
local most, waiting = tonumber(ARGV[2]), {}
local function full(q)
  local n = waiting[q.name] or call('ZCARD', q.ready_key) + call('ZCARD', q.delayed_key)
  waiting[q.name] = n + 1
  return n >= most
end
local ids, letters, others = {}, {}, {}
for i = 3, #ARGV, 2 do ids[#ids + 1] = string.sub(ARGV[i], 1, 16) end
rec:load(ids)
res:load(ids)
ent:load(ids)
if #ids > 1 then draw_seq(#ids) end
for i = 1, #ids do
  local kind, other = add_and_enqueue(ARGV[2 * i + 1], ARGV[2 * i + 2], most and full)
  letters[i] = kind
  if kind == 'E' then others[#others + 1] = other end
end
commit()
confirm()
raise_epoch()
publish()
wake_up()
return table.concat(letters) .. table.concat(others)

--@include lib broker storage both
--@queues
-- add_and_push. ARGV: queue names | max_queue or '' | per record: uuid, queue, priority, min_epoch (and token); its part
local most, waiting = tonumber(ARGV[2]), {}
local function full(q)
  local n = waiting[q.name] or call('ZCARD', q.ready_key) + call('ZCARD', q.delayed_key)
  waiting[q.name] = n + 1
  return n >= most
end
local ids, reply = {}, {}
for i = 3, #ARGV, 2 do ids[#ids + 1] = string.sub(ARGV[i], 1, 16) end
rec:load(ids)
res:load(ids)
ent:load(ids)
if #ids > 1 then draw_seq(#ids) end
for i = 1, #ids do reply[i] = add_and_enqueue(ARGV[2 * i + 1], ARGV[2 * i + 2], most and full) end
commit()
confirm()
raise_epoch()
publish()
wake_up()
return reply

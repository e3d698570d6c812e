--@include lib storage
-- append_items, under the token. ARGV: uuid, epoch, owner, index | items
local id, index = ARGV[1], tonumber(ARGV[4])
local r = run_of(id)
if not (r and r.state == 'P' and r.epoch == tonumber(ARGV[2]) and r.owner == ARGV[3]) then return 0 end
local before, last = tonumber(call('HGET', K.itemn, id) or '0'), index + #ARGV - 4
for i = 5, #ARGV do call('HSET', K.items, id .. text(index + i - 5), ARGV[i]) end
-- A new attempt begins at its own index; what an earlier one left behind it goes.
for i = last, before - 1 do call('HDEL', K.items, id .. text(i)) end
call('HSET', K.itemn, id, last)
return 1

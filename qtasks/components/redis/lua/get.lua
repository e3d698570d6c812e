--@include lib storage
-- get_many. ARGV: uuids
local ids, reply = {}, {}
for i = 1, #ARGV do ids[i] = ARGV[i] end
rec:load(ids)
run:load(ids)
cancel:load(ids)
for i = 1, #ids do shown(ids[i], reply) end
return reply

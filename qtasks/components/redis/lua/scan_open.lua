--@include lib storage
-- scan_open. ARGV: cursor, limit
local page = call('HSCAN', K.rec, ARGV[1], 'COUNT', ARGV[2])
local reply, ids = { page[1] }, {}
for i = 1, #page[2], 2 do
  ids[#ids + 1] = page[2][i]
  rec.val[page[2][i]] = page[2][i + 1]
end
run:load(ids)
cancel:load(ids)
for i = 1, #ids do shown(ids[i], reply) end
return reply

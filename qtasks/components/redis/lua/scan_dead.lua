--@include lib storage
-- scan_dead: the last buried first. ARGV: the last place seen or '', limit
local from = ARGV[1] == '' and '+inf' or '(' .. ARGV[1]
local page = call('ZREVRANGEBYSCORE', K.dead, from, '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local reply = { #page / 2 == tonumber(ARGV[2]) and page[#page] or '' }
for i = 1, #page, 2 do shown(page[i], reply) end
return reply

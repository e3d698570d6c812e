--@include lib storage
-- delete_many: finished records only. ARGV: uuids
local verdicts = {}
for i = 1, #ARGV do verdicts[i] = erase(ARGV[i]) and '1' or '0' end
commit()
return table.concat(verdicts)

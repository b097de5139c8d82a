-- LuaSocket's socket.ftp.
local ftp, ltn12, socket = require("socket.ftp"), require("ltn12"), require("socket")
local action, source, target = arg[1], arg[2], arg[3]
if action == "version" then
  print(_VERSION, socket._VERSION)
  os.exit(0)
end
local function request(path)
  return {
    host = os.getenv("FTP_HOST"), port = os.getenv("FTP_PORT"), type = "i", path = path,
    user = os.getenv("FTP_USER"), password = os.getenv("FTP_PASSWORD"),
  }
end
local done, words
if action == "fetch" then
  local what = request("done/" .. source)
  what.sink = ltn12.sink.file(io.open(target, "wb"))
  done, words = ftp.get(what)
else
  local what, file = request("queue/" .. target), io.open(source, "rb")
  what.source = ltn12.source.file(file)
  done, words = ftp.put(what)
end
print(words or done)
os.exit(done and 0 or 1)

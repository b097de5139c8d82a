# Ruby's net/ftp.
require 'net/ftp'

action, source, target = ARGV
if action == 'version'
  puts "Ruby #{RUBY_VERSION}, net-ftp #{Net::FTP::VERSION}"
  exit
end
secure = ENV['FTP_TLS'].empty? ? {} : { ssl: { ca_file: ENV['FTP_CA'] } }
begin
  Net::FTP.open(ENV['FTP_HOST'], port: ENV['FTP_PORT'].to_i, passive: true, username: ENV['FTP_USER'],
                                 password: ENV['FTP_PASSWORD'], open_timeout: 30, **secure) do |client|
    case action
    when 'fetch' then client.getbinaryfile("done/#{source}", target)
    when 'send' then client.putbinaryfile(source, "queue/#{target}")
    when 'continue'
      client.resume = true
      client.putbinaryfile(source, "queue/#{target}")
    end
    puts client.last_response
  end
rescue Net::FTPError => e
  abort e.message
end

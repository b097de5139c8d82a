#!/usr/bin/env escript
%% Erlang's application ftp.
main(["version"]) ->
    application:load(ftp),
    {ok, Version} = application:get_key(ftp, vsn),
    io:format("Erlang/OTP ~s, ftp ~s~n", [erlang:system_info(otp_release), Version]);
main([Action, Source, Target]) ->
    ok = ftp:start(),
    Secure = case os:getenv("FTP_TLS") of
        "" -> [];
        %% A certificate that signed itself is a bad one to Erlang.
        _ -> [{tls, [{verify, verify_none}, {reuse_sessions, true}]}]
    end,
    {ok, Client} = ftp:open(os:getenv("FTP_HOST"), [{port, list_to_integer(os:getenv("FTP_PORT"))}, {mode, passive} | Secure]),
    Done = case ftp:user(Client, os:getenv("FTP_USER"), os:getenv("FTP_PASSWORD")) of
        ok -> ftp:type(Client, binary), act(Client, Action, Source, Target);
        Refused -> Refused
    end,
    case Done of
        ok -> halt(0);
        {error, Why} -> io:format("~s~n", [ftp:formaterror(Why)]), io:format("~p~n", [Why]), halt(1)
    end.

act(Client, "fetch", Source, Target) -> ftp:recv(Client, "done/" ++ Source, Target);
act(Client, "send", Source, Target) -> ftp:send(Client, Source, "queue/" ++ Target).

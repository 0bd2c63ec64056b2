#!/usr/bin/perl -t
# Before a session, in its bottle: proves from inside that the bottle is sealed, then puts the session's values, which
# come on stdin, where the session's first process takes them. One line on stdout for each seal, fields parted by tabs:
# its name, how it was found (held, silent or broken), and what was seen. Where one is broken the values go nowhere.
#   claude-bottle-seals FILE|- HOST PORT SECONDS QUIET [SEAL=ADDRESS ...] [CREDENTIALS ...] [--thorough ALLOWED_HOST]
# HOST and PORT are the sidecar's, which has SECONDS to answer, as the broker has. Who lies at an ADDRESS has QUIET seconds
# to give any sign.
# CREDENTIALS, where a broker puts some in; opened without one too:
#   placeholder=NAME=VALUE           what stands for one in the session; none, where this is not the session's bottle
#   minted=HOST/PATH, own=HOST/PATH  where one goes: behind a certificate that the sidecar makes, or the broker's own
#   opened=HOST                      another host that the sidecar is to make a certificate for
#   refusal=TEXT                     what the broker says to a credential of somebody else's
# and of the values:
#   once=NAME                        the session's alone; the others stay for commands beside it
#   folder=PATH                      where those run, if not where they begin
use strict;
use warnings;
no warnings 'taint';
use POSIX qw(:errno_h);
use Socket;

my @TCP = (22, 53, 80, 443, 2375, 8888); # a closed port answers too: one that a firewall lets through is enough
my @UDP = (53, 123, 5353);
my $SILENT = 'no answer';
my $CA = '/etc/claude-bottle/ca.pem';
my $BROKER = 'claude-bottle broker'; # in its certificate; no host has such a name
my $AT_ONCE = 16;

my ($file, $host, $port, $seconds, $quiet, @rest) = @ARGV;
my (%told, $allowed);
while (defined(my $word = shift @rest)) {
    if ($word eq '--thorough') { $allowed = shift @rest }
    else { my ($what, $text) = split /=/, $word, 2; push @{ $told{$what} }, $text }
}
$| = 1; # each line is a sign of life
binmode STDIN;
my $values = do { local $/ = undef; <STDIN> } // q{};
$ENV{RES_OPTIONS} = 'timeout:1 attempts:1'; # no alarm ends a look-up
$SIG{PIPE} = 'IGNORE';

my $health = q{}; # what the sidecar has said of itself
my $began = now();
my $random = join q{}, map { ('a' .. 'z')[rand 26] } 1 .. 8;
my @by_address = grep { $told{$_} } qw(gateway egress host metadata sibling);
my %asked = map { $_ => [map { ask_address($_) } @{ $told{$_} }] } @by_address;
my $look_up = ask_name("$random.claude-bottle.invalid");
my @routes = routes();
await_sidecar();
my $openssl = program('openssl');
my @talks = map { my $shows = $_; map { tls_talk($shows, $_) } @{ $told{$shows} // [] } } qw(minted own opened);
begin_tls();
my $broken = 0;
say_seal('routes', @routes);
say_seal($_, answers(@{ $asked{$_} })) for @by_address;
say_seal('names', names($look_up));
say_seal('ipv6', ipv6());
say_seal('capabilities', capabilities());
hear($_) for @talks; # before it is asked something else: it has a second for that
say_seal('sidecar', sidecar());
credentials() if @talks || $told{placeholder};
thorough($allowed) if defined $allowed;
printf "seconds\t%.2f\n", now() - $began;
keep_values() unless $broken || $file eq q{-};
exit 0;

sub say_seal {
    my ($name, $outcome, $detail) = @_;
    $broken ||= $outcome eq 'broken';
    $detail =~ s/[^ -~]+/ /g;
    print join("\t", $name, $outcome, substr $detail, 0, 300), "\n";
}

sub give_up {
    my ($text) = @_;
    print STDERR "$text\n";
    exit 1;
}

sub keep_values {
    keep($file, $values) unless $values eq q{};
    my %once = map { $_ => 1 } @{ $told{once} // [] };
    my @lasting = map { ".=$_" } @{ $told{folder} // [] };
    push @lasting, grep { my ($name) = split /=/; !$once{$name} } split /\0/, $values;
    mkdir "$file-beside", 0700;
    keep("$file-beside/environ", join q{}, map { "$_\0" } @lasting);
}

sub keep {
    my ($target, $content) = @_;
    my $made = sysopen my $out, $target, POSIX::O_WRONLY() | POSIX::O_CREAT() | POSIX::O_EXCL(), 0600;
    $made &&= binmode $out;
    $made && print({$out} $content) && close $out or give_up("cannot keep the session's values in the bottle: $!");
}

# Seconds, finer than Perl's own; its module for that is in no small image.
sub now {
    my ($uptime) = lines_of('/proc/uptime') or give_up('no clock in the bottle: /proc/uptime cannot be read');
    return (split / /, $uptime)[0];
}

sub lines_of {
    my ($path) = @_;
    open my $source, '<', $path or return;
    return <$source>;
}

# --- who answers at an address

sub ask_address {
    my ($address) = @_;
    my $packed = inet_aton($address) or return;
    my @talks = ((map { connect_to($packed, 'tcp', $_) } @TCP), map { connect_to($packed, 'udp', $_) } @UDP);
    send $_->{link}, "\n", 0 for grep { $_->{kind} eq 'udp' && !$_->{error} } @talks;
    return @talks;
}

# A connection under way: what it is, its socket, and why it ended where it has at once.
sub connect_to {
    my ($packed, $kind, $to) = @_;
    my $type = $kind eq 'tcp' ? SOCK_STREAM : SOCK_DGRAM;
    socket my $link, PF_INET, $type | 04000, 0 or give_up("no socket in the bottle: $!"); # O_NONBLOCK
    my $ended = connect($link, pack_sockaddr_in($to, $packed)) || $! == EINPROGRESS ? 0 : $! + 0;
    return { what => "$kind " . inet_ntoa($packed) . ":$to", kind => $kind, link => $link, error => $ended, until => now() + $quiet };
}

# Any sign of life at an address means that it was reached, a refusal included.
sub answers {
    my @talks = @_;
    my %seen;
    for my $talk (@talks) {
        my $sign = sign_of($talk);
        return ('broken', "$talk->{what} $sign") if $sign && $sign ne 'unreachable';
        $seen{ $sign || $SILENT }++;
    }
    return $seen{$SILENT} ? ('silent', $SILENT) : ('held', 'unreachable');
}

sub sign_of {
    my ($talk) = @_;
    return error_word($talk->{error}) if $talk->{error};
    return q{} unless is_ready($talk);
    if ($talk->{kind} eq 'tcp') {
        my $error = unpack 'i', getsockopt $talk->{link}, SOL_SOCKET, SO_ERROR;
        return $error ? error_word($error) : 'was accepted';
    }
    return defined recv($talk->{link}, my $data, 512, 0) ? 'was answered' : error_word($! + 0);
}

# Whether there is news of it before the time is over.
sub is_ready {
    my ($talk) = @_;
    my $mask = q{};
    vec($mask, fileno $talk->{link}, 1) = 1;
    my $left = $talk->{until} - now();
    my ($read, $write) = $talk->{kind} eq 'tcp' ? (undef, $mask) : ($mask, undef);
    return select($read, $write, undef, $left > 0 ? $left : 0) > 0;
}

sub error_word {
    my ($error) = @_;
    return 'was refused' if grep { $error == $_ } ECONNREFUSED, ECONNRESET, EPROTO;
    return 'unreachable';
}

# --- what the kernel says of this process and its network

# Only the bottle's own network, and at most its own empty gateway as the way to anywhere else.
sub routes {
    my (undef, @lines) = lines_of('/proc/net/route');
    my @rows = map { [split] } @lines;
    my ($own) = grep { hex $_->[1] } @rows or return ('broken', 'no network');
    for my $row (@rows) {
        my ($device, $target, $gateway) = @$row;
        return ('broken', 'another network, by ' . $device) if $device ne $own->[0];
        return ('broken', 'a route to ' . dotted($target)) if hex $target && $target ne $own->[1];
        my $inside = (hex($gateway) & hex $own->[7]) == hex $own->[1];
        return ('broken', 'a gateway at ' . dotted($gateway)) if hex $gateway && !$inside;
    }
    return ('held', 'one network, ' . dotted($own->[1]));
}

sub dotted { return join q{.}, unpack 'C4', pack 'L', hex shift }

sub ipv6 {
    my @devices = map { (split)[5] } lines_of('/proc/net/if_inet6');
    my @others = grep { $_ ne 'lo' } @devices;
    return @others ? ('broken', "an address on $others[0]") : ('held', 'no address but loopback');
}

sub capabilities {
    my %status = map { /^(\w+):\s*(\S+)/ ? ($1 => $2) : () } lines_of('/proc/self/status');
    for my $set (qw(CapInh CapPrm CapEff CapBnd CapAmb)) {
        my $value = $status{$set} // 'unknown';
        return ('broken', "$set is $value") if $value =~ /[^0]/;
    }
    return ('broken', 'new privileges can be had') if ($status{NoNewPrivs} // 0) ne '1';
    return ('held', 'none, and none can be had');
}

# --- names

# A question under way to the bottle's resolver.
sub ask_name {
    my ($name) = @_;
    my ($server) = map { /^nameserver\s+([\d.]+)/ ? $1 : () } lines_of('/etc/resolv.conf');
    return undef unless $server;
    my $question = pack('n6', rand 65536, 0x0100, 1, 0, 0, 0) . join(q{}, map { pack 'C/a*', $_ } split /\./, $name);
    my $talk = connect_to(inet_aton($server), 'udp', 53);
    send $talk->{link}, $question . pack('C n n', 0, 1, 1), 0 unless $talk->{error};
    return $talk;
}

# No resolver of the bottle's own knows the name: who says anything of it has asked somebody outside.
sub names {
    my ($talk) = @_;
    return ('held', 'no resolver') unless $talk;
    my $sign = sign_of_name($talk) || return ('silent', $SILENT);
    return ('held', $sign) if grep { $sign eq $_ } 'SERVFAIL', 'REFUSED', 'unreachable', 'was refused';
    return ('broken', "$talk->{what} answered $sign");
}

sub sign_of_name {
    my ($talk) = @_;
    return error_word($talk->{error}) if $talk->{error};
    return q{} unless is_ready($talk);
    return error_word($! + 0) unless defined recv $talk->{link}, my $data, 512, 0;
    my $code = length $data < 4 ? 15 : unpack('x3 C', $data) & 15;
    return (qw(NOERROR FORMERR SERVFAIL NXDOMAIN NOTIMP REFUSED))[$code] // 'something';
}

# --- the sidecar

# Ask it something; returns the status and the body of its answer, or undef and why there is none.
sub ask_sidecar {
    my ($request, $then) = @_;
    my $text = q{};
    local $SIG{ALRM} = sub { die "no answer within a second\n" };
    my $done = eval {
        alarm 1;
        my $packed = inet_aton($host) or die "no such host\n";
        socket my $link, PF_INET, SOCK_STREAM, 0 or die "$!\n";
        connect $link, pack_sockaddr_in($port, $packed) or die "$!\n";
        syswrite $link, $request;
        until (is_whole($text)) { sysread $link, $text, 4096, length $text or last }
        $then->($link) if $then && $text =~ m{^HTTP/\S+ 200 };
        1;
    };
    my $failure = $@;
    alarm 0;
    return (undef, $failure =~ s/\n//gr) unless $done;
    my ($status, $body) = $text =~ m{^HTTP/\S+ (\d+).*?\r?\n\r?\n(.*)}s or return (undef, 'no HTTP answer');
    return ($status, $body);
}

sub is_whole {
    my ($text) = @_;
    my ($head, $body) = split /\r?\n\r?\n/, $text, 2;
    return 0 unless defined $body;
    return 1 if $head =~ m{^HTTP/\S+ 200 (?!.*\ncontent-length:)}si; # a tunnel
    return $head =~ /\ncontent-length:\s*(\d+)/i && length $body >= $1;
}

sub await_sidecar {
    my $end = time + $seconds;
    while (1) {
        my ($status, $said) = ask_sidecar("GET /health HTTP/1.0\r\nHost: $host\r\n\r\n");
        $health = $said;
        return if defined $status && $status == 200;
        return if $routes[0] eq 'broken'; # the sidecar's name may lead to another network, where it does not listen
        $said = "status $status" if defined $status;
        give_up("the sidecar does not answer at $host:$port: $said") if time > $end;
        select undef, undef, undef, 0.02;
    }
}

sub tunnel_to {
    my ($target, $then) = @_;
    return ask_sidecar("CONNECT $target HTTP/1.1\r\nHost: $target\r\nConnection: close\r\n\r\n", $then);
}

# In another mode it refuses an unknown name too, for another reason.
sub sidecar {
    my ($state) = $health =~ /"status"\s*:\s*"(\w+)"/;
    return ('broken', 'it says that it is ' . ($state // 'nothing')) if ($state // q{}) ne 'healthy';
    my ($mode) = $health =~ /"mode"\s*:\s*"(\w+)"/;
    return ('broken', 'its mode is ' . ($mode // 'unknown')) if ($mode // q{}) ne 'strict';
    my $name = "$random.claude-bottle.invalid";
    my ($status, $said) = tunnel_to("$name:443");
    my $refusal = "CONNECT blocked: domain not in allowlist: $name";
    return ('held', 'strict, and refuses what is not listed') if ($status // 0) == 403 && $said =~ /^\Q$refusal\E\s*$/;
    $said = "status $status, $said" if defined $status;
    return ('broken', "it answered a name that is not listed with: $said");
}

# --- where a broker puts credentials in

sub credentials {
    say_seal('placeholders', placeholders()) if $told{placeholder};
    say_seal('issuer', of_all(\&issuer, @talks));
    my @brokered = grep { $_->{path} } @talks;
    say_seal('broker', of_all(\&refuses, @brokered)) if @brokered;
}

# What stands for each credential is under its name in the values, and nothing else is; nor in what the image brings,
# which the launcher has put beside our own environment.
sub placeholders {
    my @values = pairs($values);
    for my $pair (@{ $told{placeholder} }) {
        my ($name, $stands) = split /=/, $pair, 2;
        my @given = map { $_->[1] } grep { $_->[0] eq $name } @values;
        my $brought = $ENV{"IMAGE_$name"};
        return ('broken', "$name has another value in the session") if !@given || grep { $_ ne $stands } @given;
        return ('broken', "nobody says which value $name has in the container") if !defined $brought;
        return ('broken', "$name has another value in the container") if $brought ne q{} && $brought ne "=$stands";
    }
    return ('held', 'of ' . join q{, }, map { (split /=/)[0] } @{ $told{placeholder} });
}

sub pairs { return map { [split(/=/, $_, 2), q{}] } split /\0/, shift }

# The first outcome that is broken, else the first that is silent; where all held, with all their names.
sub of_all {
    my ($judge, @them) = @_;
    return ('silent', 'not tried: no openssl in the image') unless $openssl;
    my @found = map { [$judge->($_)] } @them;
    my ($worst) = ((grep { $_->[0] eq 'broken' } @found), (grep { $_->[0] eq 'silent' } @found));
    return $worst ? @$worst : ('held', join q{, }, map { $_->{name} } @them);
}

sub tls_talk {
    my ($shows, $place) = @_;
    my ($name, $path) = $place =~ m{^([^/]+)(/.*)?}s;
    return { kind => 'tls', shows => $shows, name => $name, path => $path, said => q{} };
}

# Start some more clients, each of which asks a host through the sidecar.
sub begin_tls {
    my @next = grep { !$_->{pid} } @talks;
    ask_tls($_) for grep { $openssl } splice @next, 0, $AT_ONCE;
}

sub ask_tls {
    my ($talk) = @_;
    my ($name, $path) = @$talk{qw(name path)};
    pipe(my $out, my $in) && pipe($talk->{link}, my $said) or give_up("no pipe in the bottle: $!");
    $talk->{pid} = fork // give_up("cannot fork in the bottle: $!");
    run_tls($talk, $out, $said) unless $talk->{pid};
    $talk->{until} = now() + ($path ? $seconds : $quiet);
    my @lines = ("Host: $name", 'Authorization: Bearer claude-bottle-foreign', 'Connection: close');
    syswrite $in, join q{}, map { "$_\r\n" } "GET $path HTTP/1.1", @lines, q{} if $path;
}

# Nothing but the bottle's own authority counts, and nothing that the image sets.
sub run_tls {
    my ($talk, $out, $said) = @_;
    open STDIN, '<&', $out and open STDOUT, '>&', $said and open STDERR, '>&', $said or POSIX::_exit(127);
    %ENV = (SSL_CERT_DIR => '/nonexistent', SSL_CERT_FILE => $CA);
    $SIG{PIPE} = 'DEFAULT';
    my ($name, $proxy) = ($talk->{name}, inet_ntoa(inet_aton($host)) . ":$port");
    my @words = (qw(s_client -brief -verify_return_error -no-CApath -CAfile), $CA, '-verify_hostname', $name);
    push @words, '-ign_eof' if $talk->{path};
    push @words, '-proxy', $proxy, '-connect', "$name:443", '-servername', $name;
    exec { $openssl } 'openssl', @words or POSIX::_exit(127);
}

# Hear what a host says; once more where nobody is behind it yet: the broker may be coming up.
sub hear {
    my ($talk) = @_;
    my $end = now() + $seconds;
    while (1) {
        hear_once($talk);
        return unless $talk->{path} && is_unmanned($talk) && now() < $end;
        select undef, undef, undef, 0.02;
        @$talk{qw(pid said)} = (undef, q{});
    }
}

# What the sidecar says of a host that it cannot reach.
sub is_unmanned { return shift->{said} =~ /^HTTP\S+ 502|HTTP CONNECT failed\D*502/m }

# Take what a client says, up to its end, or to an answer that says enough.
sub hear_once {
    my ($talk) = @_;
    begin_tls() unless $talk->{pid};
    return unless $talk->{pid};
    print "\n"; # a sign of life: there may be many
    until ($talk->{said} =~ /^HTTP\S+ (?!403)\d|\Q$told{refusal}[0]\E/m || length $talk->{said} > 65536) {
        last unless is_ready($talk) && sysread $talk->{link}, $talk->{said}, 4096, length $talk->{said};
    }
    kill 'KILL', $talk->{pid};
    waitpid $talk->{pid}, 0;
    close delete $talk->{link};
}

# Only what this bottle's authority has signed comes to a connection.
sub issuer {
    my ($talk) = @_;
    my ($name, $said) = @$talk{qw(name said)};
    if ($said =~ /^CONNECTION ESTABLISHED$/m && $said =~ /^Verification: OK$/m) {
        my $own = $said =~ /^Peer certificate: .*CN ?= ?\Q$BROKER\E$/m;
        return ('held') if $own == ($talk->{shows} eq 'own');
        return ('broken', "$name is " . ($own ? "not opened: it shows the broker's certificate" : 'opened'));
    }
    return ('broken', "$name shows a certificate of others: $1") if $said =~ /^verify error:num=\d+:(.*)/m;
    my ($why) = $said =~ /HTTP CONNECT failed\D*(.*)/;
    return ('silent', "not tried: no way to $name") if !$talk->{path} && ($said eq q{} || $why);
    return ('broken', "no way to $name: " . ($why || ($said eq q{} ? $SILENT : 'no TLS')));
}

sub refuses {
    my ($talk) = @_;
    return ('held') if $talk->{said} =~ m{^HTTP/\S+ 403 .*\Q$told{refusal}[0]\E}ms;
    my ($status) = $talk->{said} =~ m{^HTTP/\S+ (\d+)}m;
    return ('broken', "$talk->{name} answers a foreign credential with " . ($status ? "status $status" : 'nothing'));
}

# By a fixed path: the image's own is not heeded here.
sub program {
    my ($name) = @_;
    my ($found) = grep { -x } map { "$_/$name" } qw(/usr/bin /usr/local/bin /bin /usr/sbin);
    return $found;
}

# --- what only verify looks at

sub thorough {
    my ($listed) = @_;
    say_seal('ports', ports());
    say_seal('ipv6-literal', ipv6_literal());
    say_seal('numeric', numeric());
    say_seal('sni', sni($listed));
    say_seal('host-names', host_names());
}

# Every TCP port of the sidecar but the proxy's.
sub ports {
    my $packed = inet_aton($host);
    my @others = grep { $_ != $port } 1 .. 65535;
    while (my @some = splice @others, 0, 400) {
        print "\n"; # a sign of life: all of them take a while
        for my $talk (map { connect_to($packed, 'tcp', $_) } @some) {
            return ('broken', "$talk->{what} was accepted") if sign_of($talk) eq 'was accepted';
        }
    }
    return ('held', "only $port is open");
}

sub ipv6_literal {
    socket my $link, Socket::AF_INET6(), SOCK_STREAM | 04000, 0 or return ('held', 'no IPv6 in the bottle');
    my $there = connect $link, Socket::pack_sockaddr_in6(80, Socket::inet_pton(Socket::AF_INET6(), '2001:db8::1'));
    return ('broken', '[2001:db8::1]:80 can be asked') if $there || $! == EINPROGRESS;
    return ('held', lc "$!");
}

# Spellings of loopback and of the metadata address that a filter of names may not know.
sub numeric {
    my @spelt = qw(127.0.0.1 2130706433 0x7f000001 0177.0.0.1 127.1 [::1] [::ffff:127.0.0.1] [::ffff:7f00:1]);
    for my $spelling (@spelt, qw(169.254.169.254 2852039166 0xa9fea9fe [::ffff:169.254.169.254])) {
        print "\n";
        my ($status, $said) = tunnel_to("$spelling:80");
        return ('broken', "the sidecar answered CONNECT $spelling:80 with status $status")
            if defined $status && $status != 403 && $status != 400;
    }
    return ('held', 'refused in every spelling');
}

# A client that asks for another host than its tunnel is for.
sub sni {
    my ($listed) = @_;
    my $answer = q{};
    my $ask = sub { syswrite $_[0], client_hello("$random.claude-bottle.invalid"); sysread $_[0], $answer, 4096 };
    my ($status, $said) = tunnel_to("$listed:443", $ask);
    return ('silent', "not tried: no tunnel to $listed") if ($status // 0) != 200;
    return ('broken', "another name went through the tunnel to $listed") if length $answer;
    return ('held', "another name is cut off in the tunnel to $listed");
}

sub client_hello {
    my ($name) = @_;
    my $host_name = pack('C n/a*', 0, $name);
    my $extensions = join q{}, map { pack 'n n/a*', @$_ } (
        [0, pack 'n/a*', $host_name],
        [10, pack 'n n2', 4, 29, 23],                # groups
        [13, pack 'n n3', 6, 0x0403, 0x0804, 0x0401], # signatures
        [43, pack 'C n2', 4, 0x0304, 0x0303],        # versions
    );
    my $hello = pack 'n a32 C n n3 C C n/a*', 0x0303, 'claude-bottle' x 3, 0, 6, 0xc02b, 0xc02f, 0x009c, 1, 0, $extensions;
    return pack 'C n n/a*', 22, 0x0301, pack 'C C n/a*', 1, 0, $hello;
}

# What Docker Desktop and OrbStack call the user's machine.
sub host_names {
    my @talks = map { ask_address($_) } grep { inet_aton($_) } qw(host.docker.internal gateway.docker.internal);
    return @talks ? answers(@talks) : ('held', 'no name of the host resolves');
}

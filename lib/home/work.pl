#!/usr/bin/perl
# What a bottle's repository has to bring home; fed to perl on stdin, with what it has to know behind the program's end.
# `list` says it, in lines; `pack` gives the objects of some of that, which `list` has left a note of in the temporary
# folder; `drop` removes that folder, which `pack` does itself where there is but one commit.
# Of the repository no hook and no monitor runs. Its filters do, as for whoever works in the bottle: without those of
# large files every one of these would look changed. Nobody outside believes any of it.
use strict;
use warnings;
no warnings 'taint';
use POSIX ();

# All of it at once: what perl holds of a file that it reads it seeks back before an exec, in whatever has its number then.
chomp(my @told = <main::DATA>);
close main::DATA;
lay(0, POSIX::O_RDONLY(), '/dev/null');

my ($task, $folder, $workspace, $slug, $old_head, $old_tree) = @ARGV;
my ($git) = grep { -x } qw(/usr/bin/git /usr/local/bin/git);
fail('there is no git in the bottle') unless $git;
my @SETTINGS = map { ('-c', $_) } qw(core.hooksPath=/dev/null core.fsmonitor=false core.untrackedCache=false
    core.trustctime=true core.checkStat=default core.fsync=none core.quotePath=false gc.auto=0 maintenance.auto=false
    safe.directory=* protocol.allow=never advice.addEmbeddedRepo=false i18n.commitEncoding=UTF-8);
# Large files go into one pack, so that nobody holds them in memory later. Not the many small ones: git looks for each in
# a list of what is in there, from its beginning, and compresses it even where it only wants to know whether it is new.
my @ADDING = map { ('-c', $_) } qw(core.bigFileThreshold=1m core.compression=1 pack.compression=1 core.safecrlf=false);
my @PACKING = map { ('-c', $_) } qw(core.bigFileThreshold=128m pack.compression=1);

$ENV{PATH} = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
$ENV{LC_ALL} = 'C.UTF-8';
$ENV{$_} = 1 for qw(GIT_NO_LAZY_FETCH GIT_NO_REPLACE_OBJECTS GIT_LFS_SKIP_SMUDGE);
$ENV{$_} = 0 for qw(GIT_TERMINAL_PROMPT GIT_OPTIONAL_LOCKS);
for my $who (qw(AUTHOR COMMITTER)) {
    $ENV{"GIT_${who}_NAME"} = "claude-bottle $slug";
    $ENV{"GIT_${who}_EMAIL"} = 'claude-bottle@localhost';
}

chdir $workspace or fail("cannot go to $workspace: $!");
my $top = said('rev-parse', '--show-toplevel') // fail('there is no repository in the workspace');
chdir $top or fail("cannot go to $top: $!");
my $common = absolute(said('rev-parse', '--git-common-dir') // fail('there is no repository in the workspace'));
my $new = "$folder/objects";
$ENV{GIT_ALTERNATE_OBJECT_DIRECTORIES} = "$common/objects";
$ENV{GIT_OBJECT_DIRECTORY} = $new;
my @partial = (said('config', 'extensions.partialClone') // q{}) eq q{} ? () : ('--exclude-promisor-objects');

if ($task eq 'drop') {
    drop();
    POSIX::_exit(0);
}
if ($task eq 'pack') {
    my (@revs, %wanted, %all);
    @wanted{@told} = ();
    each_line("$folder/revs", sub {
        my $known = $_[0] =~ /^\^/;
        $all{$_[0]} = 1 unless $known;
        push @revs, $_[0] if $known || exists $wanted{$_[0]};
    });
    write_lines("$folder/some", @revs);
    my $status = run("$folder/some", undef, @PACKING, 'pack-objects', '--revs', '--thin', '--stdout',
        '--delta-base-offset', '-q', @partial);
    drop() if keys %all == 1;
    POSIX::_exit($status ? 1 : 0);
}
list();

sub fail {
    my ($text) = @_;
    print STDERR "$text\n";
    POSIX::_exit(1);
}

sub drop {
    system '/bin/rm', '-rf', '--', $folder;
}

sub absolute {
    my ($path) = @_;
    return $path =~ m{^/} ? $path : "$top/$path";
}

# Opens a file under a number.
sub lay {
    my ($number, $how, $path) = @_;
    my $fd = POSIX::open($path, $how, oct 600) // POSIX::_exit(126);
    POSIX::dup2($fd, $number) // POSIX::_exit(126);
    POSIX::close($fd) if $fd != $number;
}

# Runs git, with files for stdin and stdout; returns its status.
sub run {
    my ($in, $out, @words) = @_;
    my $child = fork // fail("cannot fork: $!");
    if ($child == 0) {
        lay(0, POSIX::O_RDONLY(), $in // '/dev/null');
        lay(1, POSIX::O_WRONLY() | POSIX::O_CREAT() | POSIX::O_TRUNC(), $out) if defined $out;
        exec { $git } $git, @SETTINGS, @words or POSIX::_exit(126);
    }
    waitpid $child, 0;
    return $?;
}

# Returns the first line of what git says, undef where it fails.
sub said {
    my (@words) = @_;
    open my $pipe, '-|', $git, @SETTINGS, @words or return;
    my $line = <$pipe>;
    1 while <$pipe>;
    close $pipe or return;
    chomp $line if defined $line;
    return $line // q{};
}

sub write_lines {
    my ($target, @lines) = @_;
    open my $out, '>', $target or fail("cannot write $target: $!");
    print $out map { "$_\n" } @lines;
    close $out or fail("cannot write $target: $!");
}

sub each_line {
    my ($source, $do) = @_;
    open my $in, '<', $source or return;
    while (my $line = <$in>) {
        chomp $line;
        $do->($line);
    }
}

sub must {
    my ($what, $found) = @_;
    return $found // fail("git $what failed in the bottle");
}

# The working tree as git would commit it, in an index of our own: that of the repository stays as it is.
sub working_tree {
    my $index = absolute(must('rev-parse', said('rev-parse', '--git-path', 'index')));
    local $ENV{GIT_INDEX_FILE} = "$folder/index";
    if (-e $index) {
        # With its time: of a file that is not older git does not believe that it is as it was.
        system('/bin/cp', '-p', '--', $index, "$folder/index") == 0 or fail('cannot copy the index');
    }
    my @words = ('add', '-A', '--ignore-errors');
    # Left out are the files of a checkout that is sparse; an earlier git does not know the word.
    my $status = run(undef, "$folder/said", @ADDING, @words, '--sparse', '--', '.');
    $status = run(undef, "$folder/said", @ADDING, @words, '--', '.') if $status >> 8 == 129;
    print STDERR "some files could not be read\n" if $status >> 8 == 1;
    fail('git add failed in the bottle') if $status && $status >> 8 != 1;
    files_of($_) for embedded(), $status ? unborn() : ();
    return must('write-tree', said('write-tree', '--missing-ok'));
}

sub words {
    my ($source) = @_;
    local $/ = "\0";
    open my $in, '<', $source or return;
    chomp(my @found = <$in>);
    return @found;
}

# The repositories inside that git has taken for one thing each, and that HEAD does not have.
sub embedded {
    my $base = said('rev-parse', '-q', '--verify', 'HEAD^{tree}')
        // must('hash-object', said('hash-object', '-t', 'tree', '/dev/null'));
    my @words = qw(diff-index --cached --raw -z --no-renames --diff-filter=A);
    fail('git diff-index failed in the bottle') if run(undef, "$folder/added", @words, $base);
    my (@found, @said);
    @said = words("$folder/added");
    while (my ($what, $path) = splice @said, 0, 2) {
        push @found, $path if $what =~ /^:[0-7]+ 160000 /;
    }
    return @found;
}

# Those that have no commit, so that git has not taken them at all.
sub unborn {
    run(undef, "$folder/others", qw(ls-files -z --others --exclude-standard));
    return map { s{/$}{} ? $_ : () } words("$folder/others");
}

# Takes what is in such a repository as files: its commits come home nowhere. Another worktree's branch does, and a
# submodule that somebody has added stays one.
sub files_of {
    my ($path) = @_;
    delete local @ENV{qw(GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES)};
    my $theirs = said('-C', "$top/$path", qw(rev-parse --path-format=absolute --git-common-dir)) // return;
    my $ours = said(qw(rev-parse --path-format=absolute --git-common-dir)) // return;
    return if $theirs eq $ours || said(qw(--literal-pathspecs ls-files --stage --), $path);
    my @words = ('-C', "$top/$path", qw(ls-files -z --cached --others --exclude-standard));
    return if run(undef, "$folder/files", @words);
    my (%modes, %seen);
    for my $file (grep { !$seen{$_}++ } words("$folder/files")) {
        lstat "$top/$path/$file" or next;
        $modes{"$path/$file"} = -l _ ? '120000' : !-f _ || !-r _ ? next : -x _ ? '100755' : '100644';
    }
    return add_files($path, \%modes);
}

sub add_files {
    my ($path, $modes) = @_;
    local @ENV{qw(GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES)} =
        ("$folder/index", $new, "$common/objects");
    my @plain = sort grep { $modes->{$_} ne '120000' } keys %$modes;
    write_lines("$folder/asked", map { s/([\\"])/\\$1/gr =~ s/\n/\\n/gr =~ s/^|$/"/gr } map { "$top/$_" } @plain);
    return if run("$folder/asked", "$folder/hashes", qw(hash-object -w --no-filters --stdin-paths));
    my (%hashes, @hashes);
    each_line("$folder/hashes", sub { push @hashes, $_[0] });
    return if @hashes != @plain;
    @hashes{@plain} = @hashes;
    for my $link (grep { $modes->{$_} eq '120000' } keys %$modes) {
        open my $out, '>', "$folder/link" or return;
        print $out readlink("$top/$link") // return;
        close $out or return;
        $hashes{$link} = said(qw(hash-object -w --no-filters), "$folder/link") // return;
    }
    open my $out, '>', "$folder/info" or return;
    my $nothing = must('hash-object', said('hash-object', '-t', 'tree', '/dev/null'));
    print $out '0 ', '0' x length $nothing, "\t$path\0", map { "$modes->{$_} $hashes{$_}\t$_\0" } sort keys %hashes;
    close $out or return;
    return run("$folder/info", "$folder/said", qw(update-index -z --index-info));
}

sub commit_of {
    my ($head, $tree) = @_;
    my @parent = $head ? ('-p', $head) : ();
    return must('commit-tree', said('commit-tree', @parent, '-m', "What was not committed in the bottle of $slug", $tree));
}

# Those of the host's commits that are here too: nothing that they lead to has to be brought.
sub known {
    my @found;
    write_lines("$folder/asked", map { "$_^{commit}" } grep { /^[0-9a-f]+$/ } @_);
    run("$folder/asked", "$folder/answered", 'cat-file', '--batch-check=%(objectname) %(objecttype)');
    each_line("$folder/answered", sub { push @found, $1 if $_[0] =~ /^([0-9a-f]+) commit$/ });
    return @found;
}

sub list {
    umask 077;
    mkdir $folder or fail("cannot make $folder: $!");
    mkdir $new or fail("cannot make $new: $!");
    # A copied file has other times than its entry in the index: nobody has to read it again after this.
    run(undef, "$folder/said", 'update-index', '-q', '--refresh') if $task eq 'mark';
    my $head = said('rev-parse', '-q', '--verify', 'HEAD^{commit}') // q{};
    my $own = said('symbolic-ref', '-q', 'HEAD') // q{};
    my $tree = working_tree();
    my $work = q{};
    if ($task eq 'list' && ($head ne $old_head || $tree ne $old_tree)) {
        my $committed = $head ? said('rev-parse', "$head^{tree}") // q{} : q{};
        my $empty = !$head && $tree eq (said('hash-object', '-t', 'tree', '/dev/null') // q{});
        $work = $tree eq $committed ? $head : $empty ? q{} : commit_of($head, $tree);
    }
    my @lines = ('claude-bottle-work 1', ($head ? "head $head" : ()), "tree $tree");
    push @lines, branches($work, $own, @told) if $task eq 'list';
    print map { "$_\n" } @lines, 'end';
    drop() if !grep { /^(?:work|branch) / } @lines;
}

# The lines of what has commits that the host has not.
sub branches {
    my ($work, $own, @haves) = @_;
    my (%tips, %new, @lines);
    my @form = ('--format=%(objectname) %(objecttype) %(refname)', 'refs/heads');
    fail('git for-each-ref failed in the bottle') if run(undef, "$folder/refs", 'for-each-ref', @form);
    each_line("$folder/refs", sub {
        my ($tip, $type, $name) = split / /, $_[0], 3;
        $tips{$name} = $tip if $type eq 'commit' && $name ne $own;
    });
    my @known = known(@haves);
    write_lines("$folder/revs", grep({ length } $work, values %tips), map { "^$_" } @known);
    my %wanted = map { $_ => 1 } $work, values %tips;
    my $status = run("$folder/revs", "$folder/commits", 'rev-list', '--stdin', @partial);
    fail('git rev-list failed in the bottle') if $status;
    each_line("$folder/commits", sub { $new{$_[0]} = 1 if $wanted{$_[0]} });
    push @lines, "work $work" if $work && $new{$work};
    for my $name (sort keys %tips) {
        push @lines, "branch $tips{$name} " . $name =~ s{^refs/heads/}{}r if $new{$tips{$name}};
    }
    write_lines("$folder/revs", (map { (split / /)[1] } @lines), map { "^$_" } @known);
    return @lines;
}

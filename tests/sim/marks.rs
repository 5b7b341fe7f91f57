//! Marks: rare states that the runs must reach, and faults that they must meet. A simulation that
//! never gets anywhere proves nothing, so a mark that a whole budget does not reach is a failure.

/// Defines an enumeration whose members count how often they are hit, each thread for itself.
macro_rules! counted {
    ($(#[$doc:meta])* $name:ident in $counts:ident: $($(#[$note:meta])* $variant:ident = $text:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$note])* #[doc = $text] $variant,)*
        }

        thread_local! {
            static $counts: [std::cell::Cell<u64>; $name::ALL.len()] =
                const { [const { std::cell::Cell::new(0) }; $name::ALL.len()] };
        }

        impl $name {
            /// All of them, with what they mean.
            pub const ALL: &'static [($name, &'static str)] = &[$(($name::$variant, $text),)*];

            /// It has happened.
            pub fn hit(self) {
                $counts.with(|counts| {
                    let count = &counts[self as usize];
                    count.set(count.get() + 1);
                });
            }

            /// How often each happened on this thread; counting begins anew.
            pub fn take() -> Vec<u64> {
                $counts.with(|counts| counts.iter().map(|count| count.replace(0)).collect())
            }
        }
    };
}

pub(crate) use counted;

counted! {
    /// What went wrong.
    Fault in FAULTS:
    PacketLost = "a packet was lost",
    PacketDoubled = "a packet came twice",
    PacketLate = "a packet was late",
    PacketOvertook = "a packet overtook another",
    PacketCutOff = "a packet met a cut",
    PacketHeld = "a packet waited for the end of a cut",
    PacketToNobody = "a packet came to a node that was down",
    PacketReplayed = "a packet came again long after",
    PacketsUnsent = "a node stopped before its packets left",
    CutOneWay = "cut: one link, one way",
    CutLink = "cut: one link",
    CutIsolated = "cut: one node from all",
    CutDeaf = "cut: one node hears nobody",
    CutMute = "cut: nobody hears one node",
    CutHalves = "cut: two sides",
    CutBridge = "cut: two sides and a bridge",
    CutHub = "cut: only a hub is left",
    CutChain = "cut: only a chain is left",
    CutCliques = "cut: a clique and its friends",
    CutRandom = "cut: links at random",
    LeaderCutOff = "cut: around the leader",
    LeaderDeposed = "cut: the leader with a minority, for long",
    Blackout = "cut: everything",
    LinkFlapped = "a link came and went",
    WriteStalled = "a write took long",
    WriteFailed = "a write failed",
    DiskStuck = "a disk got stuck",
    DiskFilled = "a disk was full",
    DiskSlowed = "a leader's disk became slow",
    WritesLost = "a crash lost all writes under way",
    SomeWritesLost = "a crash left some writes under way",
    WriteTorn = "a crash left a part of a write",
    WritesLanded = "a crash left all writes under way",
    NodeCrashed = "a node crashed",
    LeaderCrashed = "a leader crashed",
    MostCrashed = "most nodes crashed",
    AllCrashed = "all nodes crashed",
    NodePaused = "a node was paused",
    LeaderPaused = "a leader was paused",
    NodeSuspended = "a node and its clock stood still",
    NodeUpgraded = "a node was upgraded",
    ClockJumped = "a clock jumped",
    TickedEarly = "a node was ticked early",
    ConnectionLost = "a node was told that its connection to one that had stopped is lost",
    ConnectionBroken = "a node was told that its connection to one that runs is lost",
    ConnectionsBroken = "all were told that their connections to one that runs are lost",
    HostSteppedDown = "a host gave leadership up",
    HostSlow = "a host was slow to apply",
    FetchFailed = "entries could not be read",
    PieceReadFailed = "a piece of a snapshot could not be read",
    StoreFailed = "a piece of a snapshot could not be stored",
    LoadFailed = "a snapshot could not be loaded",
    SaveFailed = "a snapshot could not be made",
    StoppedUntold = "a node stopped between keeping something and hearing so",
    LogDamaged = "a disk lost entries that were durable",
    TrimLate = "a disk kept a log that was dropped",
    Ambushed = "a fault met a node at a delicate moment",
}

counted! {
    /// Where a run got to.
    Mark in MARKS:
    // Elections.
    LeaderElected = "a leader was elected",
    LeaderAlone = "a single member elected itself",
    LeaderOutside = "a leader was elected that its newest configuration leaves out",
    LostQuorum = "a leader stepped down by check-quorum",
    DeposedByAppend = "a leader met an append of a newer term",
    DeposedByVote = "a leader met a vote request of a newer term",
    DeposedByReply = "a leader met an append reply of a newer term",
    CandidateYielded = "a candidate met the leader of its term",
    CandidateOvertaken = "a candidate met a newer term",
    CandidateTimedOut = "a campaign came to nothing",
    PreVoteTimedOut = "pre-votes came to nothing",
    PreVoteRefusedSticky = "a pre-vote was refused for a living leader's sake",
    PreVoteRefusedOld = "a pre-vote was refused as the log is older",
    PreVoteRefusedTerm = "a pre-vote was refused as the term is not new",
    PreVoteTaughtTerm = "a refused pre-vote taught a newer term",
    PreVoteOfOldRound = "a granted pre-vote came too late",
    VoteRefusedOld = "a vote was refused as the log is older",
    VoteRefusedTaken = "a vote was refused as it was given",
    VoteRefusedTerm = "a vote was refused as the term is old",
    VoteIgnoredSticky = "a vote request was ignored for a living leader's sake",
    VoteGrantedAgain = "a vote was given again to the same candidate",
    VoteHeldBack = "a vote waited for the disk",
    VoteForLongerLog = "a vote was given to a log of the same last term that is longer",
    VoteForShorterLog = "a vote was given to a shorter log of a newer term",
    OwnVoteDurable = "a campaign waited for the candidate's own vote",
    OwnVoteTooLate = "a vote for oneself became durable when the term was over",
    LateVote = "a vote came when it was not needed any more",
    SplitVote = "two candidates campaigned in one term",
    ElectedByBoth = "an election was won by both halves of a joint configuration",
    CampaignByCommitted = "a voter of only the committed configuration campaigned",
    EmptyAbstained = "an empty node did not vote",
    ExcludedAbstained = "an excluded node did not vote",
    LeaderLost = "a node was told that it has lost its leader",
    LeaderLostLeased = "a lost leader was not believed in, where reads trust clocks",
    LeaderFoundAgain = "a leader that was said to be lost was heard",
    LostCampaigned = "a node asked for pre-votes as it had lost its leader",
    LostGavePreVote = "a node gave a pre-vote as it had lost its leader",
    VoteEarly = "a node voted that had heard a leader within the election timeout",
    ElectedEarly = "a leader was elected by an early vote",
    UnwillingCampaigned = "a node that may not lead campaigned all the same",
    ReluctantHandedOver = "a leader that may not lead handed over by itself",
    // Replication.
    AckHeldBack = "an ack was held back while a write is under way",
    AckedLess = "an ack said less than was shown, for the disk lags",
    AckedAgain = "entries that were there already were acknowledged again",
    AppendRefusedGap = "an append was refused as entries are missing",
    AppendRefusedConflict = "an append was refused as the entry before it differs",
    HintSkipped = "a refusal went back more than one entry",
    StaleRefusal = "a refusal of a deposed leader's append came",
    OldLeaderRefused = "a leader of an old term was told of the newer one",
    OldCopyShort = "an old append did not truncate",
    OldCopySilent = "an old append did not bring a silent leader back",
    AppendBelowCommit = "an append began below the commit index",
    AppendLimited = "an append was limited by its size",
    AppendAlone = "an entry larger than the limit travelled alone",
    HeartbeatRefused = "a heartbeat found out that appends were lost",
    LateAck = "an ack of an earlier term came to a leader",
    Truncated = "an uncommitted tail was truncated",
    TruncatedDurable = "the truncated tail was durable",
    TruncatedUnderWay = "the truncated tail was being written",
    TruncatedOwn = "the truncated tail was the node's own, from when it led",
    TruncatedConfig = "an uncommitted configuration was truncated",
    CompletedTruncated = "a write was done whose entries were truncated meanwhile",
    CompletedAfterTerm = "a write was done that began in an earlier term",
    ManyWrites = "four writes were under way at once",
    WindowFull = "a peer's window was full",
    CommittedOldTerm = "an entry of an earlier term was committed by one of the new",
    CommittedWithoutOwnDisk = "an entry was committed that the leader's disk lacks",
    CommittedByOwnDisk = "the leader's own disk decided a commit",
    CommittedBeforeDurable = "a node knew a commit before its disk had it",
    LeaderStalled = "a leader stepped down as its disk took too long",
    LeaderWriteFailed = "a leader's write failed",
    EntriesHeldBack = "entries found no room on the disk",
    VotedWithoutRoom = "a node voted that had no room for entries",
    HandedOverWithoutRoom = "a leader without room for entries handed over",
    RoomAgain = "entries that had waited for room found it",
    // Restarts.
    RestartedInChange = "a restart found an uncommitted configuration",
    RestartedJoint = "a restart found a joint configuration",
    RestartedAfterVote = "a restart found a vote that had left",
    BootstrapLost = "a crash lost the first entry",
    RestartedByImage = "a restart found a snapshot that the log did not reach",
    // Damage.
    RestartedDamaged = "a restart found that entries were lost",
    RestartedEmpty = "a restart found that all entries were lost",
    PreVoteRefusedClaim = "a pre-vote was refused for what a node may have lost",
    VoteRefusedClaim = "a vote was refused for what a node may have lost",
    VoteGivenDamaged = "a node that had lost entries voted for one who has them",
    ClaimHeld = "a node could not campaign for what it may have lost",
    ClaimEnded = "a log reached again what it had lost",
    ClaimBounded = "a leader said how little a log can have lost",
    ClaimEndedBySnapshot = "a snapshot made up for what a log had lost",
    MatchRegressed = "a peer turned out to lack what it had acknowledged",
    // Snapshots.
    SnapshotSaved = "a node made a snapshot of its own",
    SavedTooLate = "a node's own snapshot was done when a newer one was there",
    Compacted = "a log was compacted",
    CompactionHeldBack = "a log was kept for a snapshot on its way",
    CompactedUnderTransfer = "a log was compacted in spite of a snapshot on its way",
    SnapshotBegun = "a snapshot was begun to be sent",
    SnapshotInstalled = "a leader's snapshot took the place of a log",
    InstalledInLog = "a snapshot was loaded, and entries had come up to it meanwhile",
    InstalledOverTail = "a snapshot took the place of an uncommitted tail",
    InstalledOverConfig = "a snapshot took the place of an uncommitted configuration",
    InstalledConfig = "a snapshot brought a configuration",
    SnapshotNotNeeded = "a snapshot came to a log that reaches it",
    SnapshotReplaced = "a snapshot took the place of another that was being received",
    SnapshotRivalled = "a snapshot took the place of another one of the same entries",
    PieceTooEarly = "a piece came while another was being stored, or the state loaded",
    PieceOfOldLeader = "a piece came from a leader of an old term",
    TransferTakenOver = "another leader went on with a transfer",
    TransferGoesOn = "a transfer went on after a restart of the receiver",
    TransferBeganAgain = "a transfer began again as an image could not be kept or loaded",
    LateSnapshotReply = "an answer about a snapshot came in a later term",
    TickedWhileLoading = "an election was due while a state was being loaded",
    FetchedForPeer = "entries for a peer came from storage",
    FetchedToApply = "entries to be applied came from storage",
    // Members.
    JointEntered = "a joint configuration was entered",
    JointLeft = "a joint configuration was left",
    JointInherited = "a joint configuration was inherited by a new leader",
    JointInheritedUncommitted = "an uncommitted joint configuration was inherited",
    ChangeInherited = "an uncommitted change of members was inherited",
    SeveralAtOnce = "several voters changed at once",
    SingleVoterJoined = "a single voter was joined by others",
    SingleVoterLeft = "all voters but one left",
    LearnersChanged = "learners came or went",
    LeaderRemovesItself = "a leader began its own removal",
    LeaderRemoved = "a leader led its own removal to its end",
    CommittedByBoth = "a commit was counted in both halves of a joint configuration",
    ChangeRefused = "a change was refused as another is under way",
    ChangeRefusedEarly = "a change was refused by a leader that had committed nothing",
    LearnerPromoted = "a learner became a voter",
    ExcludedTold = "a node was told that it is out",
    ExcludedRefuted = "a node knew better than to be out",
    Readmitted = "an excluded node was taken back",
    // Reads.
    ReadAtLeader = "a read was answered by the leader",
    ReadAtFollower = "a read was answered by a follower",
    ReadAtLearner = "a read was answered by a learner",
    ReadJoint = "a read was answered in a joint configuration",
    ReadBeforeNoop = "a read waited for the first commit of the term",
    ReadFailed = "a read failed as the leader was lost or silent",
    ReadRefused = "a read was refused as no leader is known",
    ReadStaleAnswer = "an answer to a question of an earlier run or term came",
    ReadByLease = "a read was answered by a lease",
    // Transfers.
    TransferDone = "leadership was handed over",
    TransferGivenUp = "a transfer was given up",
    TransferBroken = "leadership was lost amid a transfer",
    TransferRefused = "a transfer was refused",
    TransferStale = "a word to campaign was out of date",
    TransferVote = "a vote was given in spite of a living leader",
    // Proposals.
    ProposalDone = "a proposal was done",
    ProposalOverwritten = "a proposal was overwritten",
    ProposalFull = "a proposal was refused as too many wait",
    ProposalTooBig = "a proposal was refused as too large",
    ProposalElsewhere = "a proposal was refused by one that does not lead",
    ProposalInTransfer = "a proposal was refused amid a transfer",
    UnknownOutcome = "a proposal's outcome was unknown",
    UnknownWasDone = "a proposal of unknown outcome had been done",
    UnknownTookEffect = "a proposal of unknown outcome took effect later",
    // Endings.
    QuorumHealed = "only one quorum was healed",
    RestDown = "the rest stayed down",
    RestCutOff = "the rest stayed cut off",
    RestDeaf = "the rest went on talking and heard nothing",
    RestMute = "the rest went on hearing and said nothing",
}

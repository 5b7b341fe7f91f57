//! Where runs through the C interface must get to.

use crate::marks::counted;

counted! {
    /// What was seen from outside.
    Mark in MARKS:
    // Leadership.
    LeaderElected = "a member became leader",
    LeaderChanged = "another member became leader",
    LeaderAgain = "a leader led again after a restart",
    LeaderFell = "a leader became follower",
    TransferDone = "leadership was handed over",
    TransferTimedOut = "a transfer was given up",
    TransferLost = "a transfer ended with another leader or none",
    TransferRefused = "a transfer was refused",
    // Proposals.
    ProposalDone = "a proposal was done",
    ProposalElsewhere = "a proposal was refused by one that does not lead",
    ProposalTooBig = "a proposal was refused as too large",
    ProposalInTransfer = "a proposal was refused amid a transfer",
    ProposalLost = "a proposal's outcome was unknown, for leadership was lost",
    ProposalClosed = "a proposal's outcome was unknown, for the member stopped",
    UnknownTookEffect = "a proposal of unknown outcome took effect",
    MadeInCompletion = "a request was made within a completion",
    QueueFull = "an input queue was full",
    // Barriers.
    BarrierAtLeader = "a barrier was answered at the leader",
    BarrierAtFollower = "a barrier was answered at a follower",
    BarrierAtLearner = "a barrier was answered at a learner",
    BarrierByLease = "a barrier was answered while leases are trusted",
    BarrierNoQuorum = "a barrier failed, for no majority was in reach",
    BarrierLost = "a barrier failed, for the leader changed",
    BarrierOutside = "a barrier failed at a node that is out",
    // Storage.
    StoredAtOnce = "a batch was durable before its call returned",
    StoredInOldTerm = "a batch was reported durable in a later term",
    WriteRefused = "a batch was refused",
    LeaderWriteFailed = "a leader's write failed",
    Poisoned = "a failed write ended a member",
    PoisonReplaced = "a member that a failed write had ended ran again",
    RestartedWithLoss = "a node was started that had lost writes",
    DiskLost = "a disk was lost for good, and another node took the place",
    DoneWithout = "a run ended well in which a disk had been lost for good",
    RestartedBare = "a node was started that had lost all it ever wrote",
    OpenFailed = "a store could not be opened",
    Fetched = "entries were read back",
    DiskStalled = "a disk was found to be stalled",
    DiskBack = "a stalled disk was found to work again",
    // Snapshots.
    SnapshotMade = "a member made a snapshot",
    SnapshotAsked = "a snapshot that was asked for was done",
    SnapshotInstalled = "a leader's snapshot took the place of a host's state",
    LoadedAtStart = "a run began with a snapshot",
    LoadedLate = "a snapshot was loaded in the host's own time",
    SavedLate = "a snapshot was saved in the host's own time",
    LoadRefused = "a host could not load a snapshot",
    SaveGivenUp = "a host gave a snapshot up",
    HostRefused = "a host refused an entry, which ended its member",
    LogDropped = "a log no longer began with the first entry",
    // Members.
    Added = "a node was added",
    Promoted = "a learner became a voter by order",
    Removed = "a node was removed",
    RemovedSelf = "a node learnt that it was removed",
    Replaced = "a node took the place of another",
    Readmitted = "an excluded node was taken back",
    ExcludedByOrder = "a node was excluded by order",
    ExcludedByDetector = "a silent node was excluded",
    ExcludedSeveral = "several nodes were excluded at once",
    ExcludedSelf = "a node learnt that it is excluded",
    ExclusionVetoed = "a host's guard held an exclusion back",
    Fenced = "a node was told to stop serving",
    Served = "a node was told to serve again",
    ParamsChanged = "the cluster's settings were changed",
    ChangeConflict = "a change was refused as another was under way",
    // Detection.
    NodeLate = "a node was found late",
    NodeSuspect = "a node was judged dead",
    NodeReturned = "an excluded node was heard again",
    PauseNoticed = "a member noticed its own pause",
    // The transport.
    Foreign = "a message for an earlier node of the place was refused",
    // Endings.
    QuorumHealed = "only one quorum was healed",
    RestExcluded = "those that were not healed were excluded",
}

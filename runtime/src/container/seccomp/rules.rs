//! From rules per name to one verdict per number: which rule answers which call.
//!
//! [seccomp_rule_add(3)](https://man7.org/linux/man-pages/man3/seccomp_rule_add.3.html) says what a rule
//! means; what several rules for one call mean is written here, since it is written nowhere else.

use super::architecture::{Architecture, Syscall, X32_BIT};

/// One entry of the profile, checked.
#[derive(Debug)]
pub(super) struct Rule {
    /// The value to return.
    pub(super) action: u32,
    /// The rule applies when every comparison of any alternative holds; ordered by argument.
    pub(super) alternatives: Vec<Vec<Comparison>>,
}

/// A comparison of one argument with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Which argument, 0 to 5.
    pub(super) argument: u8,
    /// How to compare.
    pub(super) operator: Operator,
    /// What to compare with.
    pub(super) value: u64,
    /// The bits to compare, for [`Operator::MaskedEqual`].
    pub(super) mask: u64,
    /// Both words of the argument count, not only the low one.
    pub(super) wide: bool,
}

/// `SCMP_CMP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

/// What a filter answers to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The value to return.
    Return(u32),
    /// The arguments decide; the default action if none of them match.
    Arguments(Vec<Node>),
}

/// A step in the decision on a call's arguments: if the comparison holds, the children are tried, in
/// their order; if none of them match, the next sibling is.
///
/// Rules that share their first comparisons share nodes. Siblings have libseccomp's order, so that
/// overlapping rules with different actions get its verdict: higher arguments first, then equality
/// before "less" before "greater", then the narrower comparison. libseccomp itself breaks that order
/// when such rules differ in the low word only (it keeps one action for all values with another high
/// word); here the order always holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// What to compare.
    pub(super) comparison: Comparison,
    /// What follows if it holds.
    pub(super) outcome: Outcome,
}

/// What follows from a comparison that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The value to return.
    Return(u32),
    /// More comparisons.
    Compare(Vec<Node>),
}

/// Two rules ask for different actions under the same conditions.
#[derive(Debug)]
pub(super) struct Conflict<'a> {
    /// The later rule.
    pub(super) rule: &'a Rule,
    /// The system call.
    pub(super) name: &'static str,
}

/// The rules for all calls that share an audit token: of one architecture, or of x86_64 and x32.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    /// The token.
    pub(super) audit: u32,
    /// The bytes of an argument are stored from the most significant one.
    big_endian: bool,
    members: Vec<Member>,
    calls: Vec<Call<'a>>,
}

/// One ABI of an audit token.
#[derive(Debug)]
struct Member {
    architecture: &'static Architecture,
    /// The highest number that the profile names.
    highest: u32,
}

/// A rule for a number.
#[derive(Debug)]
struct Call<'a> {
    number: u32,
    name: &'static str,
    rule: &'a Rule,
    /// The value of the first argument when another call carries this one.
    selector: Option<u32>,
    wide: bool,
}

/// Numbers above the highest one that a profile names, when its default action is to refuse.
///
/// Such calls are most likely newer than the profile, so the answer is ENOSYS, as an older kernel
/// would say: C libraries then use the older call, whereas EPERM makes them give up (clone3, faccessat2).
/// runc has put these comparisons in front of libseccomp's filter since 1.0-rc93. Ours also counts the
/// numbers of calls that i386 has both directly and through `socketcall`: a named call never gets ENOSYS.
#[derive(Debug)]
pub(super) struct Unknown;

impl Unknown {
    /// The value to return.
    pub(super) const RETURN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    /// Whether unknown calls are singled out. Not when most calls are allowed anyway, and not for
    /// TRACE: a tracer wants to see them.
    pub(super) fn applies(default: u32) -> bool {
        !matches!(
            default & libc::SECCOMP_RET_ACTION_FULL,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        )
    }
}

impl<'a> Calls<'a> {
    /// Sorts architectures by their token, in the order given.
    pub(super) fn group(architectures: &[&'static Architecture]) -> Vec<Self> {
        let mut groups: Vec<Self> = vec![];
        for &architecture in architectures {
            let member = Member { architecture, highest: 0 };
            match groups.iter_mut().find(|calls| calls.audit == architecture.audit) {
                Some(calls) => calls.members.push(member),
                None => groups.push(Self {
                    audit: architecture.audit,
                    big_endian: architecture.big_endian,
                    members: vec![member],
                    calls: Vec::with_capacity(512),
                }),
            }
        }
        groups
    }

    /// Adds a rule for one name.
    pub(super) fn add(&mut self, syscall: &Syscall, rule: &'a Rule, default: u32) {
        for member in &mut self.members {
            let wide = member.architecture.wide;
            let direct = syscall.number(member.architecture).map(|number| (number, None));
            let carried =
                syscall.multiplexed(member.architecture).map(|(number, selector)| (number, Some(selector)));
            for (number, selector) in [carried, direct].into_iter().flatten() {
                member.highest = member.highest.max(number);
                // libseccomp refuses rules that repeat the default action, runc leaves them out.
                if rule.action != default {
                    self.calls.push(Call { number, name: syscall.name, rule, selector, wide });
                }
            }
        }
    }

    /// The verdicts for all numbers.
    pub(super) fn verdicts(mut self, default: u32) -> Result<Ranges, Conflict<'a>> {
        let mut ranges = Ranges::new(default, self.big_endian);
        self.calls.sort_by_key(|call| call.number);
        for calls in self.calls.chunk_by(|a, b| a.number == b.number) {
            ranges.append(calls[0].number, verdict(calls)?);
        }
        self.paint_absent_abi(&mut ranges);
        if Unknown::applies(default) {
            self.paint_unknown(&mut ranges);
        }
        Ok(ranges.merged())
    }

    /// x86_64 without x32, or the reverse: calls of the absent one are calls of an unknown architecture.
    fn paint_absent_abi(&self, ranges: &mut Ranges) {
        if self.audit != Architecture::of(oci_spec::runtime::Arch::ScmpArchX32).audit {
            return;
        }
        let kill = || Verdict::Return(libc::SECCOMP_RET_KILL_THREAD);
        if self.members.iter().all(|member| member.architecture.is_x32()) {
            ranges.paint(0, X32_BIT - 1, kill());
        } else if !self.members.iter().any(|member| member.architecture.is_x32()) {
            // Not -1: with it a tracer says that the call shall be skipped, seccomp(2).
            ranges.paint(X32_BIT, u32::MAX - 1, kill());
        }
    }

    fn paint_unknown(&self, ranges: &mut Ranges) {
        for member in self.members.iter().filter(|member| member.highest > 0) {
            let above = member.highest + 1;
            let unknown = || Verdict::Return(Unknown::RETURN);
            if member.architecture.audit != Architecture::of(oci_spec::runtime::Arch::ScmpArchX32).audit {
                ranges.paint(above, u32::MAX, unknown());
            } else {
                // The numbers of each ABI are those with its value of the one bit, below and above bit 31.
                let end = member.highest | (X32_BIT - 1);
                ranges.paint(above, end, unknown());
                ranges.paint((end - (X32_BIT - 1)) | 1 << 31, end | 1 << 31, unknown());
            }
            // 0 is what the kernel leaves there when it does not know the number.
            if member.architecture.zero_is_unknown() {
                ranges.paint(0, 0, unknown());
            }
        }
    }
}

/// What the rules for one number come to.
fn verdict<'a>(calls: &[Call<'a>]) -> Result<Verdict, Conflict<'a>> {
    let mut nodes = vec![];
    for call in calls {
        for alternative in &call.rule.alternatives {
            let comparisons = call.comparisons(alternative);
            // A rule without conditions replaces those with; no later rule changes it.
            if comparisons.is_empty() {
                return Ok(Verdict::Return(call.rule.action));
            }
            if !insert(&mut nodes, &comparisons, call.rule.action) {
                return Err(Conflict { rule: call.rule, name: call.name });
            }
        }
    }
    Ok(Verdict::Arguments(nodes))
}

impl Call<'_> {
    /// The comparisons as this architecture can make them.
    fn comparisons(&self, alternative: &[Comparison]) -> Vec<Comparison> {
        // The first argument of socketcall and ipc is the selector. The others are compared as if they
        // were those of the call: libseccomp does so, and a filter cannot follow their pointer.
        let selector = self.selector.map(|value| Comparison {
            argument: 0,
            operator: Operator::Equal,
            value: value.into(),
            mask: u64::MAX,
            wide: true,
        });
        let others = alternative.iter().filter(|comparison| selector.is_none() || comparison.argument != 0);
        let mut comparisons: Vec<_> =
            selector.iter().chain(others).map(|each| each.narrowed(self.wide)).collect();
        // No bit to compare: always true.
        comparisons.retain(|comparison| comparison.mask != 0);
        comparisons
    }
}

impl Comparison {
    /// The comparison on an architecture whose arguments have 64 or 32 bits.
    fn narrowed(mut self, wide: bool) -> Self {
        if !wide {
            self.wide = false;
            self.value &= u64::from(u32::MAX);
            self.mask &= u64::from(u32::MAX);
        }
        self
    }

    /// Whether this one is tried before a sibling that is there already, see [`Node`].
    fn precedes(&self, other: &Self) -> bool {
        let rank = |comparison: &Self| (comparison.argument, comparison.operator.rank());
        if rank(self) != rank(other) {
            return rank(self) > rank(other);
        }
        let narrower = |this: u64, that: u64| match other.operator {
            Operator::Less | Operator::LessOrEqual => this < that,
            _ => this > that,
        };
        if (self.value >> 32) != (other.value >> 32) || self.shares_high_word_with(other) {
            narrower(self.value, other.value)
        } else {
            false
        }
    }

    /// Whether both begin with the same test of the high word.
    fn shares_high_word_with(&self, other: &Self) -> bool {
        let masked = |comparison: &Self| comparison.operator == Operator::MaskedEqual;
        !self.wide || (masked(self) == masked(other) && self.mask >> 32 == other.mask >> 32)
    }
}

impl Operator {
    /// Which operator is tried first.
    fn rank(self) -> u8 {
        match self {
            Self::Equal | Self::NotEqual | Self::MaskedEqual => 3,
            Self::Less | Self::LessOrEqual => 2,
            Self::Greater | Self::GreaterOrEqual => 1,
        }
    }
}

/// Adds a rule to the decision; false if another rule asks for another action on the same conditions.
fn insert(nodes: &mut Vec<Node>, comparisons: &[Comparison], action: u32) -> bool {
    let Some((first, rest)) = comparisons.split_first() else { return true };
    let Some(node) = nodes.iter_mut().find(|node| node.comparison == *first) else {
        let position = nodes.iter().position(|node| first.precedes(&node.comparison)).unwrap_or(nodes.len());
        nodes.insert(position, Node::chain(first, rest, action));
        return true;
    };
    match &mut node.outcome {
        Outcome::Return(known) if rest.is_empty() => *known == action,
        // The rule with fewer conditions came first, this one would never be reached.
        Outcome::Return(_) => true,
        Outcome::Compare(children) if rest.is_empty() => {
            let same = children.iter().all(|child| child.only_returns(action));
            node.outcome = Outcome::Return(action);
            same
        }
        Outcome::Compare(children) => insert(children, rest, action),
    }
}

impl Node {
    /// The nodes of one rule.
    fn chain(first: &Comparison, rest: &[Comparison], action: u32) -> Self {
        let outcome = match rest.split_first() {
            Some((next, rest)) => Outcome::Compare(vec![Self::chain(next, rest, action)]),
            None => Outcome::Return(action),
        };
        Self { comparison: *first, outcome }
    }

    fn only_returns(&self, action: u32) -> bool {
        match &self.outcome {
            Outcome::Return(known) => *known == action,
            Outcome::Compare(children) => children.iter().all(|child| child.only_returns(action)),
        }
    }
}

/// All numbers, cut where the verdict changes.
#[derive(Debug)]
pub(super) struct Ranges {
    /// The first number of a range and the verdict for all of it; begins with 0, ascending.
    pub(super) starts: Vec<(u32, Verdict)>,
    /// The value to return when no comparison holds.
    pub(super) default: u32,
    /// Where the words of an argument stand.
    pub(super) big_endian: bool,
}

impl Ranges {
    fn new(default: u32, big_endian: bool) -> Self {
        let mut starts = Vec::with_capacity(1024);
        starts.push((0, Verdict::Return(default)));
        Self { starts, default, big_endian }
    }

    /// Sets the verdict for one number, above all that have been set before; the default follows it.
    fn append(&mut self, number: u32, verdict: Verdict) {
        // The default that followed the number before this one.
        self.starts.pop_if(|(start, _)| *start == number);
        if self.starts.last().is_none_or(|(_, last)| *last != verdict) {
            self.starts.push((number, verdict));
        }
        self.starts.push((number + 1, Verdict::Return(self.default)));
    }

    /// Sets the verdict for `first..=last`.
    fn paint(&mut self, first: u32, last: u32, verdict: Verdict) {
        let from = self.starts.partition_point(|(start, _)| *start < first);
        let to = self.starts.partition_point(|(start, _)| *start <= last);
        let follows = self.starts.get(to).map(|(start, _)| *start);
        let rest = last.checked_add(1).filter(|next| follows != Some(*next));
        let rest = rest.map(|next| (next, self.starts[to - 1].1.clone()));
        self.starts.splice(from..to, [(first, verdict)].into_iter().chain(rest));
    }

    /// Joins neighbours with the same verdict.
    fn merged(mut self) -> Self {
        self.starts.dedup_by(|next, previous| next.1 == previous.1);
        self
    }
}

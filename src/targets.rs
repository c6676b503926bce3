//! What the rows of a split are to come to: kept in a cache, handed to a head with each batch.

/// One target a row; every kind that a head can be trained on has a variant.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Targets {
    /// Nothing is said of single rows.
    #[default]
    None,
    /// The class of each row; where rows are to be told apart by whom they belong to, the group.
    Classes(Vec<i64>),
    /// The set of labels of each row.
    Sets {
        /// How many labels there are.
        classes: usize,
        /// Row after row, for each label 1 if the row has it, else 0.
        members: Vec<u8>,
    },
    /// A number for each row.
    Numbers(Vec<f32>),
    /// Text that is to be written.
    Texts {
        /// For each row the place in its sequence of the first token that is scored; all behind it
        /// are too.
        first_scored: Vec<u32>,
        /// Tokens of each row's sequence.
        lengths: Vec<u32>,
        /// What text is wanted, row by row; empty of rows that are only learnt from.
        references: Vec<String>,
    },
    /// The tokens that are scored in a batch of such rows, one for each vector.
    Tokens(Vec<u32>),
}

impl Targets {
    /// Rows that have a target.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Classes(classes) => classes.len(),
            Self::Sets { classes, members } => members.len() / classes,
            Self::Numbers(numbers) => numbers.len(),
            Self::Texts { first_scored, .. } => first_scored.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether no row has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The targets of `rows`, in that order.
    #[must_use]
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::None => Self::None,
            Self::Classes(classes) => Self::Classes(rows.iter().map(|&row| classes[row]).collect()),
            Self::Sets { classes, members } => {
                let sets = rows
                    .iter()
                    .map(|&row| &members[row * classes..][..*classes]);
                Self::Sets {
                    classes: *classes,
                    members: sets.flatten().copied().collect(),
                }
            }
            Self::Numbers(numbers) => Self::Numbers(rows.iter().map(|&row| numbers[row]).collect()),
            Self::Texts {
                first_scored,
                lengths,
                references,
            } => Self::Texts {
                first_scored: rows.iter().map(|&row| first_scored[row]).collect(),
                lengths: rows.iter().map(|&row| lengths[row]).collect(),
                references: rows
                    .iter()
                    .filter_map(|&row| references.get(row).cloned())
                    .collect(),
            },
            Self::Tokens(tokens) => Self::Tokens(rows.iter().map(|&row| tokens[row]).collect()),
        }
    }

    /// Adds the targets of more rows.
    ///
    /// # Panics
    /// If they are of another kind.
    pub fn append(&mut self, more: Self) {
        match (self, more) {
            (_, Self::None) => {}
            (targets @ Self::None, more) => *targets = more,
            (Self::Classes(classes), Self::Classes(more)) => classes.extend(more),
            (Self::Numbers(numbers), Self::Numbers(more)) => numbers.extend(more),
            (Self::Sets { members, .. }, Self::Sets { members: more, .. }) => members.extend(more),
            (
                Self::Texts {
                    first_scored,
                    lengths,
                    references,
                },
                Self::Texts {
                    first_scored: more_scored,
                    lengths: more_lengths,
                    references: more_references,
                },
            ) => {
                first_scored.extend(more_scored);
                lengths.extend(more_lengths);
                references.extend(more_references);
            }
            _ => panic!("a split has one kind of targets"),
        }
    }

    /// The classes; none where targets are something else.
    pub fn classes(&self) -> &[i64] {
        match self {
            Self::Classes(classes) => classes,
            _ => &[],
        }
    }

    /// The tokens that are scored in a batch; none where targets are something else.
    pub fn tokens(&self) -> &[u32] {
        match self {
            Self::Tokens(tokens) => tokens,
            _ => &[],
        }
    }

    /// How many tokens are scored.
    pub fn scored(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Texts {
                first_scored,
                lengths,
                ..
            } => {
                let rows = first_scored.iter().zip(lengths);
                rows.map(|(first, length)| length.saturating_sub(*first) as usize)
                    .sum()
            }
            _ => 0,
        }
    }
}

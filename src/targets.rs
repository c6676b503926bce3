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
}

impl Targets {
    /// Rows that have a target.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Classes(classes) => classes.len(),
            Self::Sets { classes, members } => members.len() / classes,
            Self::Numbers(numbers) => numbers.len(),
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
            _ => panic!("a split has one kind of targets"),
        }
    }

    /// The classes; none where targets are something else.
    pub fn classes(&self) -> &[i64] {
        match self {
            Self::None | Self::Sets { .. } | Self::Numbers(_) => &[],
            Self::Classes(classes) => classes,
        }
    }
}

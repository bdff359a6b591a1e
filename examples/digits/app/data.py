"""The 1797 handwritten digits that come with scikit-learn: 8x8 pixels each, from 0 (paper) to 16 (ink)."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def split():
    """Images and digits to learn from, then those that no training sees; the same ones each time."""
    digits = load_digits()
    seen, held_out, seen_digits, held_out_digits = train_test_split(
        digits.data, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return (seen, seen_digits), (held_out, held_out_digits)

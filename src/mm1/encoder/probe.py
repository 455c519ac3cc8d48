"""The linear probe: a linear classifier on a frozen tower's features."""

from __future__ import annotations

import numpy as np

from mm1.errors import UserError


def probe_right(train: np.ndarray, test: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray) -> np.ndarray:
    """Fit logistic regression on training features and return which test pictures it classifies right.

    Args:
        train: (n, D) features.
        test: (m, D) features.
        train_labels: (n,) classes.
        test_labels: (m,) classes.

    Returns:
        (m,) bool.

    Raises:
        UserError: If scikit-learn isn't installed, or there is only one class.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise UserError("evaluate.probe needs scikit-learn: install it with `pip install 'mm1[probe]'`") from None
    if len(np.unique(train_labels)) < 2:
        raise UserError(
            f"evaluate.probe: all training pictures have the label '{train_labels[0]}', and a classifier needs at "
            "least two: name another label or split"
        )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    right: np.ndarray = classifier.fit(train, train_labels).predict(test) == test_labels
    return right

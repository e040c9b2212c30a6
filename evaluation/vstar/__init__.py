"""V-STaR (arXiv 2503.11495): samples, answers, scores and reports of its two chains of questions."""

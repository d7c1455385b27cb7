"""A larger model rewords the examples; what it says is checked as ours is."""

"""Average gradients over ranks and spread new weights, exactly or in fewer bits."""

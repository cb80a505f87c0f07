"""What every public function must refuse, and what it must say."""

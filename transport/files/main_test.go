package files

import (
	"os"
	"testing"

	"github.com/vzkit/vzkit/internal/disktest"
)

func TestMain(m *testing.M) {
	disktest.Use()
	os.Exit(m.Run())
}
